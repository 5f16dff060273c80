"""TODO-PACKAGE assignment."""
