"""AWS: clients, roles, signatures and errors."""
