"""TODO-PACKAGE parsing."""
