"""Profiles of users: their store and a cache."""
