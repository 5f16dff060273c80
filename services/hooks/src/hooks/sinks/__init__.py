"""
Where records can go. The union of the connectors' configurations: one line a sink, and a fixture in
`tests/contracts/test_sinks.py`.
"""

from hooks.sinks.kinesis import KinesisConfig

SinkConfig = KinesisConfig
