"""This machine: child processes, ports, files that hold a secret, and the checkout."""
