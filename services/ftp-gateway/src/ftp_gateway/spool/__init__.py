"""TODO-PACKAGE spool."""
