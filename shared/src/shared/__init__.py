"""Code that the rooms of Millrace share: contracts, messaging, configuration, stores, and the life of a service."""
