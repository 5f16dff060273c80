"""TODO-PACKAGE http."""
