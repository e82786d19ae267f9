"""Which keys and values the training section of a config may have, known without importing TRL or torch."""
