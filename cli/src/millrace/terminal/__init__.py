"""TODO-PACKAGE terminal."""
