"""Ports of the domain in memory, with faults on demand."""
