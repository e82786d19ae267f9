"""Sampling on vLLM while training: servers beside the trainer, in an environment of their own, or an engine in this process."""
