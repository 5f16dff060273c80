"""Partitions: one durable consumer each, and the dispatch of its events to targets."""
