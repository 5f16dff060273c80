"""Content: bodies as they arrive, and the types that are accepted."""
