"""TODO-PACKAGE mesh."""
