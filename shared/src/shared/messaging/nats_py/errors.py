"""
Errors of JetStream, translated into those of `shared.errors` by the numbers of nats-server's errors.json.

Errors of requests are translated in `shared.messaging.endpoints` (reply) and `shared.messaging.bus` (asker).
"""

from nats.js.errors import APIError

from shared.errors import ConflictError, MillraceError, NotFoundError, StreamFullError, UnavailableError

WRONG_LAST_SEQUENCE = (10071, 10164)
"""JSStreamWrongLastSequenceErrF and its constant form (nats-server errors.json)."""
STREAM_FULL = (10047, 10077, 10122, 10023)
"""Storage or insufficient-resources errors and 'maximum bytes exceeded' (nats-server errors.json)."""


def api_error(error: APIError) -> MillraceError:
    """The kind of one of JetStream's errors."""
    if error.err_code in WRONG_LAST_SEQUENCE:
        return ConflictError("changed since it was read")
    if error.err_code in STREAM_FULL or "maximum" in (error.description or ""):
        return StreamFullError("the stream is full", retry_after_s=5)
    if error.code == 404:
        return NotFoundError(error.description or "not found")
    return UnavailableError(f"JetStream: {error.description or error.code}")
