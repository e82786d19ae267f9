"""guiderail report: run folders as static pages that open from disk."""
