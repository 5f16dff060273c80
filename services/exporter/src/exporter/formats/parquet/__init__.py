"""
Parquet files, compressed by zstd. The same rows give the same bytes, as long as DuckDB is of the same version.

Implementation: rows are spooled as lines of JSON, and a process of its own writes the file from there with DuckDB, in
one thread. Rows of fourteen columns take 2.5 us each, and the process some 110 MB; pyarrow takes 180 MB in the service.
Considerations: DuckDB and the C++ below it are kept out of the service: a fault there breaks that process alone.
"""

from exporter.formats.parquet.encoder import parquet_format
from exporter.formats.parquet.worker_pool import ParquetWorkers

__all__ = ["ParquetWorkers", "parquet_format"]
