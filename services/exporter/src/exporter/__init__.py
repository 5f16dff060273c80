"""The exporter service: writes an app's clicks and conversions as files into its customer's object store."""

SERVICE_NAME = "exporter"
