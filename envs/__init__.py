"""Where the agent acts, and how agreement with an expert is measured."""
