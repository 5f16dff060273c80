"""Runtime: settings, logs, metrics and retries."""
