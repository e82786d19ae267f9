"""How a human starts it."""
