"""The terminal: output for people and scripts, and the event loop of a verb."""
