"""TODO-PACKAGE dead_letters."""
