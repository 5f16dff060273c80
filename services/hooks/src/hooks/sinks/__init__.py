"""
Where records can go. The union of the configurations that open a sink, a connector's or a hook's own: one line a sink,
and a fixture in `tests/contracts/test_sinks.py`.
"""

from hooks.sinks.kinesis.sink import KinesisConfig
from hooks.sinks.webhook.sink import WebhookConfig

SinkConfig = KinesisConfig | WebhookConfig
