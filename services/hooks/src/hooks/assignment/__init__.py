"""Assignment of partitions to replicas, by leases."""
