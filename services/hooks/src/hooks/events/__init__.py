"""TODO-PACKAGE events."""
