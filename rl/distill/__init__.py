"""A small model from a large one of the same tokenizer: its first weights, and what it learns before it walks."""
