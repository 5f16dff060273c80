"""
Reading of a stream: one pull loop on a callback subscription, for durable consumers and for short scans.

`nats-py`'s `fetch()` makes a task and a timer for every message and can stall on an orphaned request (nats.py#986). So
the loop is ours. It requests `batch` messages from `CONSUMER.MSG.NEXT` (NATS ADR-9, ADR-37), with heartbeats, and tops
the requests up at half. Memory is bounded by `capacity` messages and `capacity_bytes`.

Order. A `Pull` hands every message out once, in the order of the stream. Messages come again after a reconnect, a lost
message or a restart of the server; those handed out before are dropped. Lost ones are requested again before anything
newer: from the ack floor (durable) or the last sequence (scan).

One file, because the loop, the acks and the restart share that state in one class.
"""

import asyncio
import contextlib
import json
from collections import deque

import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError
from nats.nuid import NUID

from shared.contracts import jetstream
from shared.errors import MillraceError, UnavailableError
from shared.messaging.bus import Bus
from shared.messaging.consumer_state import consumer_state
from shared.messaging.message import Message, parse_delivered
from shared.messaging.nats_py.errors import api_error
from shared.messaging.nats_py.internals import subscription_number
from shared.runtime.retry import Backoff
from shared.runtime.telemetry import Metrics

log = structlog.get_logger()

EXPIRES_S = 6.0
"""
Lifetime of a request. A message delivered to a reader that is frozen or cut off is lost to others for the ack wait, a
day, so no reader may take over from a silent one before its requests are over.
"""
HEARTBEAT_S = 3.0
SILENCE_S = 2 * HEARTBEAT_S + 1
"""Silence after which the server has forgotten the request."""
FIRST_MESSAGES = 64
"""Messages requested before anything is known of their size."""
HANDED_OUT_BYTES = 256 << 10
"""Most that is handed out at a time: the reader holds it while the queue fills up again."""

_names = NUID()


class ClosedError(Exception):
    """The pull was closed; there is nothing more to hand out."""


class Pull:
    """
    Messages of one consumer, in order. Made by `open_pull` and `open_scan`.

    One task calls `next`; `ack` may be called from any. `pending_at_open` says how many messages were waiting when the
    consumer was made or reset.
    """

    def __init__(
        self, bus: Bus, stream: str, config: ConsumerConfig, *, durable: bool, capacity: int, capacity_bytes: int
    ) -> None:
        self._bus = bus
        self._stream = stream
        self._config = config
        self._durable = durable
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        # The server refuses a request whose limit one message exceeds.
        self._max_bytes = max(capacity_bytes, bus.max_payload + 4096)
        self._usual_bytes = capacity_bytes / FIRST_MESSAGES
        self._queue: deque[Message] = deque()
        self._queued_bytes = 0
        self._requested = 0
        self._wake = asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self._contact_at = 0.0
        self._closed = False
        self._stale = False
        self._subscription: Subscription | None = None
        self._inbox = ""
        self._next_subject = ""
        self._consumer = config.name or ""
        self._consumer_sequence = 0
        self._delivered = 0
        self._handed_out = 0
        self._restarted_at = 0
        self._acked = 0
        self._redelivered: deque[Message] = deque()
        self._acking_again: asyncio.Future[None] | None = None
        self.pending_at_open = 0

    async def next(self, most: int, *, within_s: float | None = None) -> list[Message]:
        """
        Wait for messages and return up to `most` of them, and no more once they have `HANDED_OUT_BYTES`.

        Args:
            within_s: Return none when the server, although it answers, has sent none for so long.

        Raises:
            ClosedError: `close` was called. What was not handed out comes again to the next reader.
        """
        while not self._queue or self._stale:
            # First, so that a message which comes while the server is asked is noticed.
            self._wake.clear()
            if self._closed:
                raise ClosedError
            if self._stale or self._is_silent():
                await self._restart()
            await self._request_more()
            with contextlib.suppress(TimeoutError):
                # Not `wait_for`: before Python 3.12 it can swallow a cancellation (python/cpython#86296).
                async with asyncio.timeout(HEARTBEAT_S if within_s is None else within_s):
                    await self._wake.wait()
            if within_s is not None and not self._wake.is_set():
                return []
        if self._closed:
            raise ClosedError
        batch: list[Message] = []
        size = 0
        while self._queue and len(batch) < most and size < HANDED_OUT_BYTES:
            batch.append(self._queue.popleft())
            size += len(batch[-1].data)
        self._queued_bytes -= size
        self._usual_bytes = max(1.0, (3 * self._usual_bytes + size / len(batch)) / 4)
        self._handed_out = batch[-1].sequence
        await self._request_more()
        return batch

    @property
    def metrics(self) -> Metrics:
        return self._bus.metrics

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Hand out nothing more. Acks are possible until the block is left."""
        self._closed = True
        self._wake.set()

    async def ack(self, message: Message) -> None:
        """Acknowledge, without waiting. Under ack policy `all` this covers every message before it."""
        self._acked = max(self._acked, message.sequence)
        current = self._current(message)
        if current is not None:
            await self._send_ack(current, b"+ACK")

    async def ack_sync(self, message: Message) -> None:
        """Acknowledge, and wait for the answer. Raises `UnavailableError` when the server did not confirm."""
        self._acked = max(self._acked, message.sequence)
        current = self._current(message)
        if current is None:
            raise UnavailableError("the ack was not confirmed: the server has not sent the message again yet")
        try:
            await self._bus.client.request(current.reply, b"+ACK", timeout=5.0)
        except (NatsError, TimeoutError, ConnectionError) as error:
            raise UnavailableError(f"the ack was not confirmed: {type(error).__name__}") from error

    async def check(self) -> None:
        """
        Compare our counts with the server's, and read anew from the ack floor where they contradict.

        An earlier reader that was frozen may ack when it wakes. Its ack counts deliveries from before the reset, and
        the server passes over ours until our count is as high. A reset does not end a request that the earlier reader
        had at the server: the messages delivered to it wait for `ack_wait`.

        Raises:
            MillraceError: No answer.
        """
        known, received = self._delivered, self._consumer_sequence
        state = await consumer_state(self._bus, self._stream, self._consumer)
        self._delivered = state.delivered
        if state.acked > state.delivered or (known > received and known > self._consumer_sequence):
            log.warning("consumer_state_diverged", stream=self._stream, consumer=self._consumer)
            self._mark_stale()

    def _current(self, message: Message) -> Message | None:
        """
        The message as the server has sent it since the last reset; None while it has not.

        A reset counts deliveries from 1 again. An ack with a number from before it would put the floor ahead of them,
        and the server would pass over every ack until its count is as high.
        """
        if message.sequence > self._restarted_at:
            return message
        again = self._redelivered
        while len(again) > 1 and again[1].sequence <= message.sequence:
            again.popleft()
        return again[0] if again and again[0].sequence <= message.sequence else None

    async def _send_ack(self, message: Message, ack_body: bytes) -> None:
        try:
            await self._bus.client.publish(message.reply, ack_body)
        except (NatsError, ConnectionError) as error:
            # The message comes again after the next reset: at least once.
            log.warning("ack_send_failed", stream=self._stream, sequence=message.sequence, message=str(error))

    async def open(self) -> None:
        """Make or reset the consumer and begin to read. Called by `open_pull` and `open_scan`."""
        await self._begin()
        self._bus.reconnected.append(self._on_reconnect)

    async def end(self) -> None:
        """Unsubscribe, and delete a scan's consumer."""
        self.close()
        self._bus.reconnected.remove(self._on_reconnect)
        if self._acking_again is not None:
            # The next reader resets the consumer, and an ack by the old count must not come after that.
            await asyncio.wait((self._acking_again,))
        with contextlib.suppress(NatsError, TimeoutError, ConnectionError):
            if self._subscription is not None:
                self._bus.deliver.pop(str(subscription_number(self._subscription)), None)
                await self._subscription.unsubscribe()
            if not self._durable and self._bus.connected:
                await self._bus.js.delete_consumer(self._stream, self._consumer)

    async def _begin(self) -> None:
        """Make or reset the consumer and subscribe. Raises `MillraceError` when that fails."""
        self._inbox = ""
        try:
            if self._durable:
                # Acks and requests go different ways in the server. An answer in between lets acks arrive first.
                await self._bus.js.consumer_info(self._stream, self._consumer)
                # Before the reset: the server must not get an ack by the old count after it.
                self._restarted_at = self._handed_out
                self._redelivered.clear()
                reset = await self._bus.js.reset_consumer(self._stream, self._consumer)
                pending = reset.info.num_pending
            else:
                self._consumer = _names.next().decode()
                config = self._config.evolve(name=self._consumer)
                if self._handed_out and config.deliver_policy is not DeliverPolicy.LAST_PER_SUBJECT:
                    config = config.evolve(
                        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                        opt_start_seq=self._handed_out + 1,
                        opt_start_time=None,
                    )
                pending = (await self._bus.js.add_consumer(self._stream, config)).num_pending
        except APIError as error:
            raise api_error(error) from error
        except (NatsError, TimeoutError, ConnectionError) as error:
            raise UnavailableError(f"{self._stream} cannot be read: {type(error).__name__}") from error
        self.pending_at_open = pending or 0
        self._next_subject = jetstream.next_messages(self._stream, self._consumer)
        self._consumer_sequence = 0
        self._delivered = 0
        self._requested = 0
        self._stale = False
        self._record_contact()
        self._inbox = self._bus.client.new_inbox()
        # The callback only queues, so our limits hold and the library's are turned off.
        self._subscription = await self._bus.client.subscribe(
            self._inbox, cb=self._on_message, pending_msgs_limit=-1, pending_bytes_limit=0
        )
        self._bus.deliver[str(subscription_number(self._subscription))] = self._deliver
        await self._request_more()

    async def _restart(self) -> None:
        """Forget what was not handed out and read on from there. Tries until the server is back, or the pull is
        closed."""
        if self._subscription is not None:
            self._bus.deliver.pop(str(subscription_number(self._subscription)), None)
            with contextlib.suppress(NatsError, ConnectionError):
                await self._subscription.unsubscribe()
            self._subscription = None
        self._queue.clear()
        self._queued_bytes = 0
        for delay_s in Backoff(first_s=0.1, max_s=5.0).delays():
            try:
                await self._begin()
            except MillraceError as error:
                if self._closed:
                    return
                log.warning("consumer_open_failed", stream=self._stream, consumer=self._consumer, message=str(error))
                await asyncio.sleep(delay_s)
            else:
                return

    async def _request_more(self) -> None:
        # As many messages as fit, by the size of those before.
        most = max(1, min(self._capacity, int(self._capacity_bytes / self._usual_bytes)))
        room = most - len(self._queue) - self._requested
        if self._closed or self._stale or room < (most + 1) // 2 or self._queued_bytes > self._capacity_bytes // 2:
            return
        request = {
            "batch": room,
            "max_bytes": self._max_bytes,
            "expires": int(EXPIRES_S * 1e9),
            "idle_heartbeat": int(HEARTBEAT_S * 1e9),
        }
        self._requested += room
        try:
            await self._bus.client.publish(self._next_subject, json.dumps(request).encode(), reply=self._inbox)
        except (NatsError, ConnectionError):
            self._stale = True

    async def _on_message(self, received: Msg) -> None:
        """Callback by way of the library: statuses, and messages whose ack subject names a domain."""
        self._record_contact()
        headers = received.headers
        if headers is not None and (status := headers.get("Status")):
            self._on_status(status, headers)
            return
        message, consumer_sequence = parse_delivered(received)
        self._accept(message, consumer_sequence)

    def _deliver(self, subject: str, reply: str, tokens: list[str], headers: bytes, body: bytes) -> None:
        """Callback for messages by way of our parser (`shared.messaging.nats_py.parser`)."""
        self._contact_at = self._clock()
        _, _, _, _, times, sequence, consumer_sequence, at_ns, pending = tokens
        message = Message(subject, body, int(sequence), int(at_ns), headers, int(times), int(pending), reply)
        self._accept(message, int(consumer_sequence))

    def _accept(self, message: Message, consumer_sequence: int) -> None:
        self._requested = max(0, self._requested - 1)
        if consumer_sequence != self._consumer_sequence + 1:
            log.warning("message_lost", stream=self._stream, consumer=self._consumer, sequence=message.sequence)
            self._mark_stale()
            return
        self._consumer_sequence = consumer_sequence
        if message.sequence > self._handed_out or self._repeats:
            self._queue.append(message)
            self._queued_bytes += len(message.data)
            self._wake.set()
            return
        message.data = b""
        self._redelivered.append(message)
        self._acking_again = asyncio.ensure_future(self._repeat_ack(message, self._inbox, self._acking_again))

    async def _repeat_ack(self, message: Message, inbox: str, before: "asyncio.Future[None] | None") -> None:
        if before is not None:
            await before
        if inbox != self._inbox:
            # The consumer was reset since: an ack by the old count must not reach the server.
            return
        if message.sequence <= self._acked:
            await self._send_ack(message, b"+ACK")
        # A redelivered message is in no queue, so no reader takes it and requests more.
        await self._request_more()

    def _on_status(self, status: str, headers: dict[str, str]) -> None:
        """
        Handle a status: 100 is a heartbeat; 408 and 409 end a request and say how much of it is left; 503 means no
        server has the stream.
        """
        if status == "100":
            return
        if left := headers.get("Nats-Pending-Messages"):
            self._requested = max(0, self._requested - int(left))
        else:
            log.warning("consumer_lost", stream=self._stream, status=status, message=headers.get("Description", ""))
            self._mark_stale()
        self._wake.set()

    @property
    def _repeats(self) -> bool:
        """A scan of last values begins anew after a restart; its reader compares revisions."""
        return self._config.deliver_policy is DeliverPolicy.LAST_PER_SUBJECT

    def _mark_stale(self) -> None:
        self._stale = True
        self._wake.set()

    def _on_reconnect(self) -> None:
        self._mark_stale()

    def _record_contact(self) -> None:
        self._contact_at = self._clock()

    def _is_silent(self) -> bool:
        return self._clock() - self._contact_at > SILENCE_S
