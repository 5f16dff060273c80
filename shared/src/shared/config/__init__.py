"""Configuration in the bucket `CONFIG`: its registry, its secrets and the tokens of the HTTP interface."""
