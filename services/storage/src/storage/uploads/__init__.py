"""Uploads: an object with its thumbnails, stored under its key and kept on record."""
