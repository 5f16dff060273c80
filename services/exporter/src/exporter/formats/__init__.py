"""
Formats of exported files: rows to bytes.

To add a format: a file here, an entry in `FORMATS`, a unit test, a row in the service's README.
"""

from typing import Literal

from exporter.formats.avro import AVRO
from exporter.formats.csv_gzip import CSV_GZIP
from exporter.formats.ndjson_gzip import NDJSON_GZIP
from exporter.formats.parquet import ParquetWorkers, parquet_format
from exporter.pipeline.ports import Format

FormatName = Literal["csv.gz", "avro", "parquet", "ndjson.gz"]
FORMATS: dict[str, Format] = {"csv.gz": CSV_GZIP, "avro": AVRO, "ndjson.gz": NDJSON_GZIP}
"""Formats by name, but for `parquet`, which needs a process of its own: `formats_with` adds it."""


def formats_with(workers: ParquetWorkers) -> dict[str, Format]:
    """Every format by name. The workers write the files of `parquet`."""
    return FORMATS | {"parquet": parquet_format(workers)}
