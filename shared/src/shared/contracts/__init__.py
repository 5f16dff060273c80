"""Contracts: messages, subjects, streams, keys and permissions, as a program in another language needs them."""
