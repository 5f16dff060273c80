"""TODO-PACKAGE summaries."""
