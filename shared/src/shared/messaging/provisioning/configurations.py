"""
Configurations of streams and consumers as JSON: those that the mesh wants, and the differences to those on the server.

JSON and not the classes of nats-py, which drop a field that they do not know: a field of a later server would pass.
"""

import json
from typing import Any, Final

from msgspec import Struct
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from shared.contracts.consumers import DurableConsumer
from shared.contracts.streams import Bucket, Stream
from shared.messaging.streams import stream_config
from shared.runtime.settings import Settings

Configuration = dict[str, Any]

OWN_METADATA: Final = "millrace-"
LIMITS_KEY: Final = "millrace-limits"
LIMITS: Final = ("max_age", "max_bytes", "num_replicas")
"""
Fields that settings change. `provision` alone knows the settings, so it writes the values into the stream's metadata
too, and the services compare with these.
"""
UNMANAGED: Final[tuple[str, ...]] = ("name", "description", "placement", "metadata")
"""Fields that the operator may set by hand; of the metadata only the keys of the mesh are compared."""
UNSET: Final[tuple[Any, ...]] = (None, False, 0, -1, "", "none", [], {})
"""Values by which a server says that something is not configured."""
NANOSECONDS: Final = ("max_age", "duplicate_window", "ack_wait", "inactive_threshold", "subject_delete_marker_ttl")

ACK_WAIT_S: Final = 24 * 3600.0
"""
Never relied upon: a reader that takes over resets the consumer to its ack floor. A short wait would break the order.
"""
MAX_ACK_PENDING: Final = 100_000
MAX_WAITING: Final = 512


class Difference(Struct, frozen=True):
    """A field of a configuration. `expected` and `found` are JSON values; None means not set."""

    field: str
    expected: Any
    found: Any

    def __str__(self) -> str:
        return f"{self.field}: expected {_shown(self.field, self.expected)}, found {_shown(self.field, self.found)}"


def stream_of(spec: Stream | Bucket) -> str:
    """The name of the stream, or of the one under the bucket."""
    return spec.stream if isinstance(spec, Bucket) else spec.name


def title(spec: Stream | Bucket | DurableConsumer) -> str:
    """The name of a thing for a person."""
    if isinstance(spec, DurableConsumer):
        return f"consumer {spec.name} of stream {spec.stream.name}"
    return f"{'bucket' if isinstance(spec, Bucket) else 'stream'} {spec.name}"


def wanted_stream(spec: Stream | Bucket, settings: Settings) -> Configuration:
    """The configuration that a stream gets from `provision`, which has these settings."""
    return with_limits(json.loads(json.dumps(stream_config(spec, settings).as_dict())))


def with_limits(wanted: Configuration) -> Configuration:
    """The configuration, with its limits in the metadata."""
    limits = json.dumps({name: wanted[name] for name in LIMITS})
    return {**wanted, "metadata": {**wanted.get("metadata", {}), LIMITS_KEY: limits}}


def wanted_by_service(spec: Stream | Bucket, found: Configuration) -> Configuration:
    """The configuration that a service expects: its limits are those that `provision` left in the metadata."""
    wanted = wanted_stream(spec, Settings())
    try:
        limits = json.loads((found.get("metadata") or {})[LIMITS_KEY])
        return with_limits({**wanted, **{name: limits[name] for name in LIMITS}})
    except (LookupError, TypeError, ValueError):
        return wanted


def wanted_consumer(spec: DurableConsumer) -> Configuration:
    """The configuration of a durable consumer: read in order, and acknowledged up to a message."""
    config = ConsumerConfig(
        name=spec.name,
        durable_name=spec.name,
        filter_subject=spec.subject,
        ack_policy=AckPolicy.ALL,
        ack_wait=ACK_WAIT_S,
        max_ack_pending=MAX_ACK_PENDING,
        max_deliver=-1,
        max_waiting=MAX_WAITING,
        deliver_policy=DeliverPolicy.ALL,
    )
    wanted: Configuration = json.loads(json.dumps(config.as_dict()))
    return wanted


def differences(found: Configuration, wanted: Configuration) -> list[Difference]:
    """All fields in which a configuration on the server is not the wanted one, also those that nobody here knows."""
    fields = sorted((found.keys() | wanted.keys()) - set(UNMANAGED))
    told = [Difference(name, _value(wanted.get(name)), _value(found.get(name))) for name in fields]
    own, of_found = (config.get("metadata") or {} for config in (wanted, found))
    keys = sorted(key for key in own.keys() | of_found.keys() if key.startswith(OWN_METADATA))
    told += [Difference(f"metadata.{key}", own.get(key), of_found.get(key)) for key in keys]
    return [one for one in told if one.expected != one.found]


def merged(found: Configuration, wanted: Configuration) -> Configuration:
    """The wanted configuration with all that an operator may have set by hand in the one on the server."""
    kept = {name: found[name] for name in UNMANAGED if name in found}
    of_others = {k: v for k, v in (found.get("metadata") or {}).items() if not k.startswith(OWN_METADATA)}
    metadata = {**of_others, **wanted.get("metadata", {})}
    return {**kept, **wanted, **({"metadata": metadata} if metadata else {})}


def _value(value: Any) -> Any:
    if any(value == unset and type(value) is type(unset) for unset in UNSET):
        return None
    return sorted(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else value


def _shown(field: str, value: Any) -> str:
    if value is None:
        return "nothing"
    if field in NANOSECONDS and isinstance(value, int):
        return f"{value / 1e9:g} s"
    return json.dumps(value)
