"""Configuration files: a TOML file as resources of the services, with the line of each value."""
