"""Delivery: batches of records to targets, in order per user. Holds the port of a sink."""
