"""TODO-PACKAGE aws."""
