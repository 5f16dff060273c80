"""TODO-PACKAGE content."""
