"""From a group of rollouts to samples with advantages. Pure arithmetic, no torch."""
