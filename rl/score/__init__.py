"""The numbers: SOP, single steps, likelihood, metric profiles, statistics."""
