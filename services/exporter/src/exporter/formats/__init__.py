"""Formats of exported files: rows to bytes."""
