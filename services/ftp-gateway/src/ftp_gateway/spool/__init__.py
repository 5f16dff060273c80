"""The spool: uploads on disk, shared by all replicas, under opaque names."""
