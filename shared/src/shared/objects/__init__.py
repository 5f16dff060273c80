"""TODO-PACKAGE objects."""
