"""TODO-PACKAGE profiles."""
