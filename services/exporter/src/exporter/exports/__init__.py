"""Exports: their schedule, their runs with progress and retries, and the files of a run."""
