"""TODO-PACKAGE remotes."""
