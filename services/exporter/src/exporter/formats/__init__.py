"""
Formats of exported files: rows to bytes.

To add a format: a file here, an entry in `FORMATS`, a unit test, a row in the service's README.
"""

from typing import Literal

from exporter.formats.csv_gzip import CsvGzip
from exporter.pipeline.ports import OpenEncoder

FormatName = Literal["csv_gzip"]
FORMATS: dict[FormatName, OpenEncoder] = {"csv_gzip": CsvGzip}
