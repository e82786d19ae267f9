"""Public trajectory formats -> standard JSONL and images stored once, without TensorFlow."""
