"""TODO-PACKAGE configuration."""
