"""TODO-PACKAGE clients."""
