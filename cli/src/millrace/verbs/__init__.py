"""TODO-PACKAGE verbs."""
