"""Widgets: HTML whose inline images are stored and replaced by URLs."""
