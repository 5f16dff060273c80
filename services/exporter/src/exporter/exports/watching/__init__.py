"""Care for failing exports: probes, dropping of old events, alerts."""
