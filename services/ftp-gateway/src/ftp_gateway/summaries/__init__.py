"""Daily summaries of files, by e-mail."""
