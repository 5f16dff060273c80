"""TODO-PACKAGE processing."""
