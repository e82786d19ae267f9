"""The run folder: what is written, and what can be computed from it again."""
