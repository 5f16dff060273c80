"""TODO-PACKAGE nats_servers."""
