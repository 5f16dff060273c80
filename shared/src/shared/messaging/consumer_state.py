"""
State of a durable consumer, as the server reports it.

A pull compares its own counts with it, and the status of hooks shows it.
"""

from msgspec import Struct
from nats.errors import Error as NatsError
from nats.js.errors import APIError

from shared.errors import UnavailableError
from shared.messaging.bus import Bus
from shared.messaging.nats_py.errors import api_error


class ConsumerState(Struct, frozen=True, kw_only=True):
    """
    Counts of a durable consumer. `floor` is a sequence of the stream; `delivered` and `acked` count deliveries since
    the last reset.
    """

    floor: int
    pending: int
    delivered: int
    acked: int


async def consumer_state(bus: Bus, stream: str, durable: str) -> ConsumerState:
    """
    Ask the server. `pending` are all messages above the floor.

    Raises:
        NotFoundError: There is no such consumer.
        UnavailableError: No answer.
    """
    try:
        info = await bus.js.consumer_info(stream, durable)
    except APIError as error:
        raise api_error(error) from error
    except (NatsError, TimeoutError, ConnectionError) as error:
        raise UnavailableError(f"{durable} was not read: {type(error).__name__}") from error
    assert info.ack_floor is not None
    assert info.delivered is not None
    return ConsumerState(
        floor=info.ack_floor.stream_seq,
        pending=(info.num_pending or 0) + (info.num_ack_pending or 0),
        delivered=info.delivered.consumer_seq,
        acked=info.ack_floor.consumer_seq,
    )
