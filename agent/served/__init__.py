"""A policy behind a server: any OpenAI-compatible one, and vLLM's own protocol."""
