"""nats-server: its configuration, one server, or a cluster of three."""
