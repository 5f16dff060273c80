"""Parsing: bytes of a push or profile file to rows and row errors, in a process of its own."""
