"""TODO-PACKAGE runtime."""
