"""Files of the repository that are generated, and compared by `millrace check`."""
