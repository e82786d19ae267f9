"""guiderail study: arms of one comparison, trained and scored job by job into small records, and what follows from them."""
