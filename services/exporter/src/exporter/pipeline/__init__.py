"""TODO-PACKAGE pipeline."""
