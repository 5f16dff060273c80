"""
Subjects of JetStream's own API (NATS ADR-1, ADR-37) that we ask directly, beside nats-py.

With wildcards they are the rights of `shared.contracts.permissions`.
"""


def get_message(stream: str) -> str:
    """
    Read one message, the last of a subject, say; the request's body names it, so this is the right to read the whole
    stream. The answer is JSON of the API, and not the message: a reply subject of a stream gets no body that somebody
    chose (docs/adr/0027). That is why nobody has the direct gets of NATS ADR-31.
    """
    return f"$JS.API.STREAM.MSG.GET.{stream}"


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
