"""Changes to nats-py: its client, its parser, its errors, and the private names that they use."""
