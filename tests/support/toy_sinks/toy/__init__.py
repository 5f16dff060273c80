"""Lines in a file that a hook names."""
