"""guiderail evaluate: recordings, live worlds, and scoring recorded answers again."""
