"""
Durable consumers of the mesh: the stream that each reads, and its filter.

`millrace provision` makes them (`shared.messaging.provisioning`). A reader has no right to make or change one.
"""

from msgspec import Struct

from shared.contracts.streams import EVENTS, PROFILE_UPDATES, PUSH, Stream
from shared.contracts.subjects import (
    PARTITIONS,
    PROFILES_CONSUMER,
    PUSH_ENGINE_CONSUMER,
    events_of_partition,
    hooks_consumer,
    profile_update,
    push_send,
)


class DurableConsumer(Struct, frozen=True, kw_only=True):
    """A durable consumer. `subject` is its filter, within the subjects of the stream."""

    stream: Stream
    name: str
    subject: str


HOOKS_CONSUMERS = tuple(
    DurableConsumer(stream=EVENTS, name=hooks_consumer(partition), subject=events_of_partition(partition))
    for partition in range(PARTITIONS)
)
"""By partition."""
PROFILES_READER = DurableConsumer(stream=PROFILE_UPDATES, name=PROFILES_CONSUMER, subject=profile_update("*", "*"))
PUSH_ENGINE_READER = DurableConsumer(stream=PUSH, name=PUSH_ENGINE_CONSUMER, subject=push_send("*", "*"))

CONSUMERS = (*HOOKS_CONSUMERS, PROFILES_READER, PUSH_ENGINE_READER)
