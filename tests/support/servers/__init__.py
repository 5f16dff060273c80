"""Servers that a service talks to or is: real ones, with faults on demand."""
