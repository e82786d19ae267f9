"""A policy in this process, on torch and transformers, with the work that its requests share."""
