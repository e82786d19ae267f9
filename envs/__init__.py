"""Where the agent acts, and how agreement with an expert is measured."""

if __name__ != "guiderail.envs":  # from the repository's root this folder would also import as another package
    raise ImportError("import guiderail.envs, not envs")
