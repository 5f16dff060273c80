"""TODO-PACKAGE uploads."""
