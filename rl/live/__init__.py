"""Live attempts as work: jobs, journal, workers, score."""
