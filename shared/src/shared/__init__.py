"""What the rooms of Millrace share: contracts, bus, registry, stores, and the life of a service."""
