"""TODO-PACKAGE matching."""
