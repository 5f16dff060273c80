"""The record of a run while it works, and requests to runs: cancel, and retry now."""
