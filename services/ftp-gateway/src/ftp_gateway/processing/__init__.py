"""Processing: from a committed upload to published rows, an error report and a completed file."""
