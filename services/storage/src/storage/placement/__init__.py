"""Placement: the provider that stores an object, and the one that takes over in an outage."""
