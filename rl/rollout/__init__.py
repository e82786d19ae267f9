"""How experience is sampled: many rollouts over one policy, one generation at a time."""
