"""Backlogs of blocked targets: detachment from the live stream, checkpoints, and readers that catch up."""
