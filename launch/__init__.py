"""How a human starts it."""

if __name__ != "guiderail.launch":  # from the repository's root this folder would also import as another package
    raise ImportError("import guiderail.launch, not launch")
