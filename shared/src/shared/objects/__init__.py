"""Object stores: Amazon S3, Azure Blob Storage or a local directory."""
