"""TODO-PACKAGE exports."""
