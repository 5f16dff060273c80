"""
The newest message of each of many subjects, read from the API of JetStream by requests that are sent together.

Each answer is JSON of the API (STREAM.MSG.GET), with the message in it as Base64. A direct get (NATS ADR-31) would read
1,000 messages in a third of the time. But it answers with the message itself, to any subject that the request names:
who may write one message and read it so, writes any subject of the account (docs/adr/0027).
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec import Struct
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from shared.contracts import jetstream
from shared.errors import UnavailableError
from shared.messaging.message import Message
from shared.messaging.nats_py.client import NatsClient
from shared.messaging.nats_py.internals import send_commands, subscription_number
from shared.messaging.nats_py.parser import StreamParser

AT_ONCE = 128
"""Requests that are sent together. The server closes for 64 MiB that wait, and a profile has up to 256 KiB."""
ANSWERS_S = 5.0
NO_MESSAGE = 10037
"""JSNoMessageFoundErr (nats-server, errors.json)."""


class _FoundMessage(Struct):
    subject: str
    seq: int
    time: str
    data: bytes = b""
    hdrs: bytes = b""


class _ApiRefusal(Struct):
    code: int
    err_code: int = 0
    description: str = ""


class _MessageAnswer(Struct):
    message: _FoundMessage | None = None
    error: _ApiRefusal | None = None


_answers = msgspec.json.Decoder(_MessageAnswer)


def request_body(subject: str) -> bytes:
    """The body of a request for the newest message of a subject."""
    return msgspec.json.encode({"last_by_subj": subject})


def parse_answer(stream: str, body: bytes) -> Message | None:
    """The message in an answer, or None where the subject has none. Raises `UnavailableError` for another answer."""
    try:
        answer = _answers.decode(body)
    except msgspec.MsgspecError as error:
        raise UnavailableError(f"{stream} cannot be read now: {error}") from None
    if (found := answer.message) is not None:
        at_ns = _nanoseconds(found.time)
        return Message(found.subject, found.data, sequence=found.seq, at_ns=at_ns, raw_headers=found.hdrs)
    if answer.error is not None and answer.error.err_code == NO_MESSAGE:
        return None
    reason = f"{answer.error.code} {answer.error.description}" if answer.error is not None else "no message"
    raise UnavailableError(f"{stream} cannot be read now: {reason}")


async def read_newest(client: NatsClient, parser: StreamParser, stream: str, wanted: Sequence[str]) -> list[Message]:
    """
    The newest message of each subject that has one, in no order.

    Raises:
        UnavailableError: No answer, or a part of it is missing.
    """
    found: list[Message] = []
    answers: list[bytes] = []
    complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    expected = 0

    def on_answer(body: bytes) -> None:
        answers.append(body)
        if len(answers) == expected and not complete.done():
            complete.set_result(None)

    async def on_status(message: Msg) -> None:
        # 503: no server answers requests of JetStream now.
        if not complete.done():
            complete.set_exception(UnavailableError(f"{stream} cannot be read now: {message.headers}"))

    inbox = client.new_inbox()
    question = jetstream.get_message(stream)
    try:
        subscription = await client.subscribe(inbox, cb=on_status)
        number = subscription_number(subscription)
        parser.answered[number] = on_answer
        try:
            for at in range(0, len(wanted), AT_ONCE):
                *others, last = [request_body(subject) for subject in wanted[at : at + AT_ONCE]]
                answers, expected = [], len(others) + 1
                complete = asyncio.get_running_loop().create_future()
                commands = [f"PUB {question} {inbox} {len(body)}\r\n".encode() + body + b"\r\n" for body in others]
                await send_commands(client, b"".join(commands))
                await client.publish(question, last, reply=inbox)
                async with asyncio.timeout(ANSWERS_S):
                    await complete
                found += [message for body in answers if (message := parse_answer(stream, body)) is not None]
        finally:
            parser.answered.pop(number, None)
            await subscription.unsubscribe()
    except (NatsError, TimeoutError, ConnectionError) as error:
        raise UnavailableError(f"{stream} was not read: {type(error).__name__}") from error
    return found


def _nanoseconds(text: str) -> int:
    """Nanoseconds of a time in RFC 3339 with up to nine digits of a second, of which `datetime` reads six."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * 10**9 + int(f"{fraction:0<9}")
