"""The pipeline: events of the stream, selected and built into files. Holds the ports of its plug-ins."""
