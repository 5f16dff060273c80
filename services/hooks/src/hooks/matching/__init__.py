"""Matching: the hooks that fire for an event, and the record that each sends."""
