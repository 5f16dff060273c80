"""Where files go. Adding a sink: a file here, a member of the union, a contract fixture, a row in the README."""

from exporter.destinations.gateway import GatewayConfig
from exporter.destinations.s3 import S3Config

DestinationConfig = S3Config | GatewayConfig
