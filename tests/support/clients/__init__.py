"""Clients of the services, as their users write them."""
