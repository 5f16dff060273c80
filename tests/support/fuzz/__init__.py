"""Damaged requests, messages and files, and what has to hold while a mesh gets them. No test lives here."""
