"""TODO-PACKAGE formats."""
