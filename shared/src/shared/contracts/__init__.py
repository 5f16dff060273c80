"""TODO-PACKAGE contracts."""
