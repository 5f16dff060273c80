"""The pipeline: events of the stream, selected and gathered into files. Holds the ports of destinations and layouts."""
