"""Stores media and gives the URL under which they are served."""
