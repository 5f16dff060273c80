"""TODO-PACKAGE messaging."""
