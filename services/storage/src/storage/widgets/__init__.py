"""TODO-PACKAGE widgets."""
