"""
Destinations of exported files.

To add a destination: a file here, a member of the union, a fixture in `tests/contracts/test_export_destinations.py`, a
row in the service's README.
"""

from exporter.destinations.azure import AzureConfig
from exporter.destinations.gateway import GatewayConfig
from exporter.destinations.local import LocalFolderConfig
from exporter.destinations.s3 import S3Config

DestinationConfig = S3Config | AzureConfig | LocalFolderConfig | GatewayConfig
