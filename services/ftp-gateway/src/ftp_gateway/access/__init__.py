"""TODO-PACKAGE access."""
