"""Configuration: the form of an export, and the settings of the exporter alone."""
