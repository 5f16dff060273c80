"""TODO-PACKAGE images."""
