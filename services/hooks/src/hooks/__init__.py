"""Takes events in and streams those that a hook asks for to where it says."""
