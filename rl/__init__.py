"""How the agent learns and how it is scored."""

if __name__ != "guiderail.rl":  # from the repository's root this folder would also import as another package
    raise ImportError("import guiderail.rl, not rl")
