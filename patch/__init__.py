"""Repairs of a turn on which the policy and the expert disagree."""

if __name__ != "guiderail.patch":  # from the repository's root this folder would also import as another package
    raise ImportError("import guiderail.patch, not patch")
