"""TODO-PACKAGE model."""
