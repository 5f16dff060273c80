"""TODO-PACKAGE config."""
