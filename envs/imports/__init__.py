"""Public trajectory formats become standard JSONL and images that are stored once. TensorFlow is not needed."""
