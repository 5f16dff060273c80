"""The storage service: stores media with their thumbnails, and returns their permanent URLs."""

SERVICE_NAME = "storage"
