"""TODO-PACKAGE placement."""
