"""
Formats of exported files: rows to bytes.

To add a format: a file here, an entry in `FORMATS`, a unit test, a row in the service's README.
"""

from typing import Literal

from exporter.formats.avro import AVRO
from exporter.formats.csv_gzip import CSV_GZIP
from exporter.pipeline.ports import Format

FormatName = Literal["csv.gz", "avro"]
FORMATS: dict[str, Format] = {"csv.gz": CSV_GZIP, "avro": AVRO}
"""Formats by name."""
