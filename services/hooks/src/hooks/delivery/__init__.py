"""TODO-PACKAGE delivery."""
