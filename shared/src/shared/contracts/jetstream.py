"""
Subjects of JetStream's own API (NATS ADR-1, ADR-31, ADR-37) that we ask directly, beside nats-py.

With wildcards they are the rights of `shared.contracts.permissions`.
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


def stream_create(stream: str) -> str:
    """Make a stream."""
    return f"$JS.API.STREAM.CREATE.{stream}"


def stream_update(stream: str) -> str:
    """Change a stream's configuration. A user with this right can read and write the account (docs/adr/0027)."""
    return f"$JS.API.STREAM.UPDATE.{stream}"


def consumer_create(stream: str, consumer: str, subject: str) -> str:
    """Make or change a consumer with one filter. The server compares the filter with that of the body."""
    return f"$JS.API.CONSUMER.CREATE.{stream}.{consumer}.{subject}"


def consumer_info(stream: str, consumer: str) -> str:
    """Ask for a consumer's configuration and state."""
    return f"$JS.API.CONSUMER.INFO.{stream}.{consumer}"


def consumer_reset(stream: str, consumer: str) -> str:
    """Set a consumer back to its ack floor."""
    return f"$JS.API.CONSUMER.RESET.{stream}.{consumer}"


def consumer_delete(stream: str, consumer: str) -> str:
    """Delete a consumer."""
    return f"$JS.API.CONSUMER.DELETE.{stream}.{consumer}"


def purge(stream: str) -> str:
    """Delete the messages of a stream that the request's body names."""
    return f"$JS.API.STREAM.PURGE.{stream}"


def delete_message(stream: str) -> str:
    """Delete one message of a stream."""
    return f"$JS.API.STREAM.MSG.DELETE.{stream}"
