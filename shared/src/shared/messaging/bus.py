"""
The mesh's one connection to NATS: connect, publish with JetStream's ack, ask, read one stored message.

Requests are answered in `shared.messaging.endpoints`, streams are read in `shared.messaging.pull` and made in
`shared.messaging.streams`. Nothing of any service is here. One file, because every call shares the connection, its
limits and the translation of its errors.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec
import structlog
from msgspec import Struct
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError, NoRespondersError, OutboundBufferLimitError
from nats.js import JetStreamContext
from nats.js.errors import APIError, NoStreamResponseError
from nats.micro.request import ERROR_CODE_HEADER
from nats.nuid import NUID

from shared.contracts import jetstream, subjects
from shared.contracts.messages import Alert, decode, encode
from shared.contracts.streams import Bucket, Stream
from shared.errors import KINDS, BusyError, InvalidError, MillraceError, TooLargeError, UnavailableError
from shared.messaging.message import Message, OutgoingMessage, headers_of
from shared.messaging.nats_py.client import NatsClient
from shared.messaging.nats_py.errors import api_error
from shared.messaging.nats_py.internals import send_commands
from shared.messaging.nats_py.newest import parse_answer, read_newest, request_body
from shared.messaging.nats_py.parser import Deliver, StreamParser
from shared.runtime.retry import Backoff, retry
from shared.runtime.telemetry import Metrics

log = structlog.get_logger()
T = TypeVar("T")
ELECTION = Backoff(first_s=0.05, max_s=0.5)
ELECTION_S = 2.0
"""Time to wait for a stream's leader: a stream that is new, or has lost its leader, does not answer for a moment."""

CLOSED_CHECK_S = 1.0
MESSAGE_ID_CHARS = 1024

BATCH_ID, BATCH_SEQUENCE, BATCH_COMMIT = "Nats-Batch-Id", "Nats-Batch-Sequence", "Nats-Batch-Commit"

_names = NUID()


class Published(Struct, frozen=True):
    """
    The sequence of a message in its stream. `duplicate`: the stream had a message of this id, which has the sequence,
    and has not stored another one.
    """

    sequence: int
    duplicate: bool


class StreamState(Struct, frozen=True, kw_only=True):
    """Sequences and size of a stream. An empty stream has `first_sequence` = `last_sequence` + 1."""

    first_sequence: int
    last_sequence: int
    messages: int
    bytes: int


class Bus:
    """One signed-in connection. Made by `connect`."""

    def __init__(self, client: NatsClient, parser: StreamParser, metrics: Metrics) -> None:
        self.client = client
        self._parser = parser
        self.deliver: dict[str, Deliver] = parser.deliver
        """By the number of a subscription: the callback for its messages (`shared.messaging.nats_py.parser`)."""
        self.js: JetStreamContext = client.jetstream()
        self.metrics = metrics
        self.reconnected: list[Callable[[], None]] = []
        """Callbacks after every reconnect, when the server has forgotten every open request."""
        self.refused = ""
        """Reason why the server lets the client in no more; `connect` sets it."""

    @property
    def connected(self) -> bool:
        return self.client.is_connected

    @property
    def max_payload(self) -> int:
        """The server's limit for one message, in bytes."""
        return self.client.max_payload

    async def wait_closed(self) -> str:
        """
        Wait until the client has given up for good, which no reconnect follows, and return the reason.

        An error of the server's does that, such as a line over its limit. The library's callback for it is left out
        where the last flush fails, so the state is looked at. A client that is refused at each attempt goes on for
        ever, so it is closed here.
        """
        while not self.client.is_closed:
            if self.refused:
                await self.close()
                return self.refused
            await asyncio.sleep(CLOSED_CHECK_S)
        return self._parser.last_error or str(self.client.last_error or "no reason was given")

    async def close(self) -> None:
        """Close the client. What it has not sent is lost, and that it cannot be sent is no error any more."""
        with contextlib.suppress(NatsError, OSError):
            await self.client.close()

    async def ping(self) -> None:
        """Check the connection. Raises `UnavailableError` when the server does not answer within 2 s."""
        if not self.client.is_connected:
            raise UnavailableError("not connected to NATS")
        try:
            await self.client.flush(timeout=2)
        except (NatsError, TimeoutError):
            raise UnavailableError("NATS does not answer") from None

    async def publish(
        self,
        subject: str,
        data: bytes,
        *,
        message_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        expect_last_sequence: int | None = None,
        timeout_s: float = 5.0,
    ) -> Published:
        """
        Publish a message, and return its place once JetStream has stored it.

        Args:
            message_id: `Nats-Msg-Id`; a repetition within the stream's window is dropped. JetStream compares it over
                the whole stream, so it holds the app where the stream has several.
            expect_last_sequence: The last sequence of this subject, 0 for none.

        Raises:
            InvalidError: The subject or the id is none that may reach the wire.
            ConflictError: The subject has moved on from `expect_last_sequence`.
            StreamFullError: The stream is full.
            BusyError: Too much waits to be sent.
            TooLargeError: Over the server's `max_payload`.
            UnavailableError: No answer. The message may or may not be stored: publish it again with the same
                `message_id`.
        """
        all_headers = dict(headers or {})
        if message_id is not None:
            if len(message_id) > MESSAGE_ID_CHARS or "\r" in message_id or "\n" in message_id:
                raise InvalidError(f"expected at most {MESSAGE_ID_CHARS} characters of one line", field="message_id")
            all_headers["Nats-Msg-Id"] = message_id
        message = OutgoingMessage(subject, data, all_headers, expect_last_sequence)
        return await self._publish((message,), [headers_of(message)], timeout_s)

    async def publish_together(self, messages: Sequence[OutgoingMessage], *, timeout_s: float = 5.0) -> int:
        """
        Publish messages into one stream in their order, all or none (NATS ADR-50). They have no ids of their own.

        Returns:
            The sequence of the last; the others have those right before it.

        Args:
            messages: At most 1,000, which is the server's limit. Each that expects a last sequence has a subject of its
                own.

        Raises:
            ConflictError: A subject has moved on from its `expect_last_sequence`. Nothing is stored.
            InvalidError, BusyError, TooLargeError, UnavailableError: As `publish` raises them; `UnavailableError` also
                when a part was lost on the way, and then nothing is stored.
        """
        if len(messages) == 1:
            return (await self._publish(messages, [headers_of(messages[0])], timeout_s)).sequence
        batch_id = _names.next().decode()
        published = await self._publish(
            messages,
            [
                {BATCH_ID: batch_id, BATCH_SEQUENCE: str(number), **headers_of(message)}
                for number, message in enumerate(messages, start=1)
            ],
            timeout_s,
        )
        return published.sequence

    async def _publish(
        self, messages: Sequence[OutgoingMessage], headers: Sequence[dict[str, str]], timeout_s: float
    ) -> Published:
        """Publish; the answer to the last message is the answer to all."""
        subjects.check_subjects([message.subject for message in messages])
        last = messages[-1]
        if len(messages) > 1:
            headers[-1][BATCH_COMMIT] = "1"
        try:
            if len(messages) > 1:
                await self._send(messages[:-1], headers)
            ack = await self.js.publish(last.subject, last.data, headers=headers[-1] or None, timeout=timeout_s)
        except APIError as error:
            raise api_error(error) from error
        except MaxPayloadError:
            longest = max(len(message.data) for message in messages)
            raise TooLargeError(f"expected at most {self.max_payload} bytes in a message, got {longest}") from None
        except OutboundBufferLimitError:
            raise BusyError("too much waits to be sent to NATS", retry_after_s=1) from None
        except (NatsError, NoStreamResponseError, TimeoutError, ConnectionError) as error:
            raise UnavailableError(f"NATS did not confirm the message: {type(error).__name__}") from error
        self.metrics.count("millrace_bus_published_total", len(messages), stream=ack.stream)
        return Published(ack.seq, ack.duplicate is True)

    async def _send(self, messages: Sequence[OutgoingMessage], headers: Sequence[dict[str, str]]) -> None:
        """
        Queue messages without waiting, as nats-py's `publish` does with each. All together take a fifth of the time,
        for a thousand small ones. They leave with the next message that the library publishes.
        """
        if not self.client.is_connected:
            raise UnavailableError("not connected to NATS")
        if max(len(message.data) for message in messages) > self.max_payload:
            raise MaxPayloadError
        parts: list[bytes] = []
        for message, named in zip(messages, headers, strict=False):
            lines = "\r\n".join([f"{name}: {value}" for name, value in named.items()])
            head = f"NATS/1.0\r\n{lines}\r\n\r\n".encode()
            command = f"HPUB {message.subject} {len(head)} {len(head) + len(message.data)}\r\n"
            parts += (command.encode(), head, message.data, b"\r\n")
        await send_commands(self.client, b"".join(parts))

    async def request(self, subject: str, message: Struct, reply: type[T], *, timeout_s: float = 5.0) -> T:
        """
        Ask a service.

        Raises:
            InvalidError: The subject is none that may reach the wire.
            MillraceError: The kind of error that the service answered with.
            TooLargeError: Over the server's `max_payload`.
            UnavailableError: No answer.
        """
        subjects.check_subjects((subject,))
        try:
            answer = await self.client.request(subject, encode(message), timeout=timeout_s)
        except NoRespondersError:
            raise UnavailableError(f"nobody answers {subject}") from None
        except MaxPayloadError:
            raise TooLargeError(f"expected at most {self.max_payload} bytes in a request") from None
        except (NatsError, TimeoutError, ConnectionError) as error:
            raise UnavailableError(f"{subject} was not answered: {type(error).__name__}") from error
        if answer.headers and (code := answer.headers.get(ERROR_CODE_HEADER)):
            body = msgspec.json.decode(answer.data) if answer.data else {}
            kind = KINDS.get(code, UnavailableError)
            raise kind(body.get("message", code), field=body.get("field"), retry_after_s=body.get("retry_after_s"))
        return decode(answer.data, reply)

    async def last_message(self, stream: Stream | Bucket, subject: str) -> Message | None:
        """
        The newest message of a subject, or None. It needs the right to read the whole stream
        (`Grant.gets`); the entries of `READ_IN_PARTS` are read by `shared.messaging.kv`.

        Raises:
            InvalidError: The subject is none that may reach the wire.
            UnavailableError: No answer in 5 s, or no server answers for the stream within `ELECTION_S`.
        """
        name = stream.stream if isinstance(stream, Bucket) else stream.name
        subjects.check_subjects((subject,))

        async def ask() -> Message | None:
            try:
                answer = await self.client.request(jetstream.get_message(name), request_body(subject), timeout=5.0)
            except NoRespondersError:
                raise UnavailableError(f"{name} cannot be read now") from None
            return parse_answer(name, answer.data)

        try:
            return await retry(ask, backoff=ELECTION, deadline_s=ELECTION_S)
        except (NatsError, TimeoutError, ConnectionError) as error:
            raise UnavailableError(f"{name} was not read: {type(error).__name__}") from error

    def decoded(self, stream: Stream | Bucket, place: str | int, data: bytes, kind: type[T]) -> T | None:
        """
        The body of a message of a stream. `place` is its key or sequence, for the log.

        Any user can lead an answer of NATS to a subject (docs/adr/0027). So None, a log entry and a count for a body
        that is no `kind`.
        """
        try:
            return decode(data, kind)
        except InvalidError as error:
            name = stream.stream if isinstance(stream, Bucket) else stream.name
            self.metrics.count("millrace_unreadable_entries_total", stream=name)
            log.warning("entry_decoding_failed", stream=name, place=place, message=error.message)
            return None

    async def last_messages(self, stream: Stream | Bucket, wanted: Sequence[str]) -> list[Message]:
        """
        The newest message of each of these subjects that has one, in no order.

        Args:
            wanted: Subjects without wildcards.

        Raises:
            UnavailableError: No answer, or a part of it is missing.
        """
        name = stream.stream if isinstance(stream, Bucket) else stream.name
        return await read_newest(self.client, self._parser, name, wanted)

    async def stream_state(self, stream: Stream | Bucket) -> StreamState:
        """Sequences and size of a stream."""
        name = stream.stream if isinstance(stream, Bucket) else stream.name
        try:
            state = (await self.js.stream_info(name)).state
        except APIError as error:
            raise api_error(error) from error
        except (NatsError, TimeoutError) as error:
            raise UnavailableError(f"{name} was not read: {type(error).__name__}") from error
        return StreamState(
            first_sequence=state.first_seq, last_sequence=state.last_seq, messages=state.messages, bytes=state.bytes
        )

    async def alert(self, alert: Alert, message_id: str | None = None) -> None:
        """
        Publish an alert. One that cannot be published is logged: it must not fail the work that raised it. Of several
        with one `message_id` within the duplicate window of `ALERTS`, the first is kept.
        """
        log.warning(
            "alert_raised", kind=alert.kind, app_key=alert.app_key, subject=alert.subject, message=alert.message
        )
        try:
            # The app may be what somebody has put into a key.
            app_key = alert.app_key if subjects.APP_KEY.fullmatch(alert.app_key) else subjects.NO_APP
            subject = subjects.alert(alert.service, app_key, alert.kind)
            await self.publish(subject, encode(alert), message_id=message_id)
        except MillraceError as error:
            log.error("alert_publish_failed", kind=alert.kind, message=str(error))
