"""TODO-PACKAGE kinesis."""
