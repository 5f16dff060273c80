"""What is changed in nats-py: its client, its parser, its errors, and the private names that this takes."""
