"""TODO-PACKAGE webhook."""
