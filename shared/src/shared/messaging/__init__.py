"""Messaging over NATS: requests, streams, consumers and key-value buckets."""
