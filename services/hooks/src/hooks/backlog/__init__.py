"""TODO-PACKAGE backlog."""
