"""Sinks: one folder a sink and one word in the union, with a fixture in `tests/contracts/test_sinks.py`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, get_args

from hooks.sinks.kinesis.config import KinesisConfig
from hooks.sinks.port import SinkFactory
from hooks.sinks.webhook.config import WebhookConfig

SinkConfig = KinesisConfig | WebhookConfig

SINKS: Mapping[str, type[SinkFactory]] = {config.hook_type: config for config in get_args(SinkConfig)}
"""The configuration of each sink, by the type of a hook."""

if TYPE_CHECKING:
    HookType = str
    ConnectorName = str
else:
    HookType = Literal[tuple(SINKS)]
    ConnectorName = Literal[tuple(sink.connector for sink in SINKS.values() if sink.connector is not None)]
