"""Remotes: customers' own servers, from which files are pulled on a schedule."""
