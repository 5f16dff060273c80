"""TODO-PACKAGE partitions."""
