"""Outcomes of a message on a real server: acknowledged, retried before any later one, or made a dead letter."""

import asyncio
from collections.abc import Sequence

import pytest

from shared.contracts.streams import PUSH
from shared.errors import BusyError, InvalidError, MillraceError, UnavailableError
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_pull
from shared.messaging.handling import BUG_ATTEMPTS, consume
from shared.messaging.message import Message
from shared.messaging.pull import Pull
from shared.runtime.retry import Backoff
from support.run_service import PUSH_READER

SUBJECT = "push.send.shop.f1"


class Seen:
    """A handler that fails as the test sets it, and records its messages."""

    def __init__(self, pull: Pull, until: int, failures: dict[bytes, list[Exception]]) -> None:
        self._pull, self._until, self._failures = pull, until, failures
        self.handled: list[bytes] = []
        self.put_aside: list[tuple[bytes, str]] = []
        self.refused: list[MillraceError] = []
        """Raised before anything is put aside."""

    async def __call__(self, message: Message) -> None:
        if waiting := self._failures.get(message.data):
            raise waiting.pop(0)
        self.handled.append(message.data)
        self._stop_at_the_end()

    async def aside(self, message: Message, error: MillraceError) -> None:
        if self.refused:
            raise self.refused.pop(0)
        self.put_aside.append((message.data, error.code))
        self._stop_at_the_end()

    def _stop_at_the_end(self) -> None:
        if len(self.handled) + len(self.put_aside) == self._until:
            self._pull.close()


async def consumed(bus: Bus, failures: dict[bytes, list[Exception]], refused: Sequence[MillraceError] = ()) -> Seen:
    async with open_pull(bus, PUSH_READER) as pull:
        seen = Seen(pull, 3, failures)
        seen.refused.extend(refused)
        async with asyncio.timeout(30):
            await consume(pull, "test", seen, seen.aside, backoff=Backoff(first_s=0.01, max_s=0.02))
    return seen


async def test_consume_tries_a_retryable_error_again_before_anything_later(push: Bus) -> None:
    for n in (1, 2, 3):
        await push.publish(SUBJECT, b"%d" % n)

    seen = await consumed(
        push, {b"2": [BusyError("later", retry_after_s=0.01), BusyError("later", retry_after_s=0.01)]}
    )

    assert (seen.handled, seen.put_aside) == ([b"1", b"2", b"3"], [])


async def test_consume_makes_a_message_that_can_never_be_handled_a_dead_letter(push: Bus) -> None:
    for n in (1, 2, 3):
        await push.publish(SUBJECT, b"%d" % n)

    seen = await consumed(push, {b"2": [InvalidError("wrong")]})

    assert (seen.handled, seen.put_aside) == ([b"1", b"3"], [(b"2", "invalid")])


async def test_consume_makes_a_dead_letter_of_a_bug_after_some_tries(push: Bus) -> None:
    for n in (1, 2, 3):
        await push.publish(SUBJECT, b"%d" % n)

    seen = await consumed(push, {b"2": [RuntimeError("bug")] * BUG_ATTEMPTS})

    assert (seen.handled, seen.put_aside) == ([b"1", b"3"], [(b"2", "internal")])


@pytest.mark.parametrize("failures", [[InvalidError("wrong")] * 2, [RuntimeError("bug")] * BUG_ATTEMPTS])
async def test_consume_continues_when_dead_letters_fail_for_a_moment(push: Bus, failures: list[Exception]) -> None:
    for n in (1, 2, 3):
        await push.publish(SUBJECT, b"%d" % n)

    seen = await consumed(push, {b"2": failures}, [UnavailableError("away")])

    assert ([b"1", b"3"], [b"2"]) == (seen.handled, [data for data, _ in seen.put_aside])


async def test_consumed_messages_do_not_come_again(push: Bus) -> None:
    for n in (1, 2, 3):
        await push.publish(SUBJECT, b"%d" % n)
    await consumed(push, {})

    info = await push.js.consumer_info(PUSH.name, "test")

    assert info.ack_floor is not None
    assert info.ack_floor.stream_seq == 3
