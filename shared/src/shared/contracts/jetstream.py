"""
Subjects of JetStream's own API (NATS ADR-1, ADR-31, ADR-37) that we ask directly, beside nats-py.

What a user may ask is `shared.contracts.grants`, which spells the same grammar with wildcards.
"""


def direct_get(stream: str, subject: str = "") -> str:
    """Read the last message of a subject; without one, what the request's body asks for (NATS ADR-31)."""
    return f"$JS.API.DIRECT.GET.{stream}.{subject}" if subject else f"$JS.API.DIRECT.GET.{stream}"


def next_messages(stream: str, consumer: str) -> str:
    """Ask a consumer for messages (NATS ADR-9, ADR-37)."""
    return f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"


def stream_info(stream: str) -> str:
    """Ask for a stream's state."""
    return f"$JS.API.STREAM.INFO.{stream}"


def purge(stream: str) -> str:
    """Delete the messages of a stream that the request's body names."""
    return f"$JS.API.STREAM.PURGE.{stream}"


def delete_message(stream: str) -> str:
    """Delete one message of a stream."""
    return f"$JS.API.STREAM.MSG.DELETE.{stream}"
