"""Lines in a folder that an app names, one file a stream."""
