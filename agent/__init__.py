"""Who acts: the actions a policy can take, how it is prompted and read, and policies themselves."""

if __name__ != "guiderail.agent":  # from the repository's root this folder would also import as another package
    raise ImportError("import guiderail.agent, not agent")
