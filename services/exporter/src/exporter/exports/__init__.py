"""Exports: when a run is due, its progress, its retries, and the files that it writes."""
