"""TODO-PACKAGE routes."""
