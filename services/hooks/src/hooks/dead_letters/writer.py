"""
Dead letters written for people on `dlq.hooks.<app>.<owner>.<reason>`. The owner is a hook, or `entrance`.

A put returns once JetStream has stored the dead letter, however long that takes: only then may its source be
acknowledged.

A dead letter holds no credential. A record is rendered from an event and never from a connector. Where an event holds
a secret of its app's configuration, the dead letter has `***` instead, and so has a replay of it.
"""

import asyncio
import json
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Protocol

import msgspec
import structlog

from hooks import SERVICE_NAME
from hooks.delivery.model import Record
from hooks.matching.rule import Target
from shared.contracts import subjects
from shared.contracts.messages import DeadLetter, encode
from shared.errors import MillraceError
from shared.messaging.bus import Published
from shared.runtime.logs import MASK, MIN_SECRET_CHARS, redactor
from shared.runtime.retry import Backoff
from shared.runtime.telemetry import Metrics

log = structlog.get_logger()

ENTRANCE = "entrance"
ENVELOPE_BYTES = 4096
"""Room for everything but the body in a message of the server's `max_payload`."""
RETRY = Backoff(first_s=0.1, max_s=10.0)


class DeadLetterBus(Protocol):
    """The part of `shared.messaging.bus.Bus` that is needed here."""

    @property
    def max_payload(self) -> int: ...

    async def publish(self, subject: str, data: bytes, *, message_id: str | None = None) -> Published: ...


class ReplayedRecord(Record, kw_only=True, eq=False, gc=True):
    """
    A record that was rendered before, and comes from the dead letter `dead_letter_id`.

    A dead letter that it becomes must not count as a repetition of the first one, or both would be lost.
    """

    dead_letter_id: int


class DeadLetterWriter:
    """
    Satisfies `hooks.delivery.model.DeadLetters`.

    Args:
        secrets_of: Returns the secrets of an app's configuration, which no dead letter may hold.
    """

    def __init__(
        self,
        publisher: DeadLetterBus,
        metrics: Metrics,
        clock: Callable[[], datetime],
        secrets_of: Callable[[str], Iterable[str]] = lambda _: (),
    ) -> None:
        self._publisher = publisher
        self._metrics = metrics
        self._clock = clock
        self._secrets_of = secrets_of

    async def put_record(self, target: Target, record: Record, reason: str, message: str) -> None:
        """
        Store a rendered record that its target refuses. One that is stored already was counted by whoever stored it,
        and is matched once more because its message was read once more.
        """
        stored = await self.put(
            target.app_key,
            record.hook_id,
            reason,
            message=message,
            source=record.source,
            body=record.data,
            attempts=max(1, record.attempts),
            key=record.key,
            once=f":{record.dead_letter_id}" if isinstance(record, ReplayedRecord) else "",
        )
        if stored:
            record.counters.dead_lettered += 1
        elif not isinstance(record, ReplayedRecord):
            record.counters.matched -= 1

    async def put(
        self,
        app_key: str,
        owner_id: str,
        reason: str,
        *,
        message: str,
        source: str,
        body: bytes,
        attempts: int = 1,
        key: str = "",
        once: str = "",
    ) -> bool:
        """
        Store a dead letter. One of the same source (and `once`) and owner is stored once within the duplicate window
        of `DLQ`.

        A body over what one message can hold is cut. `source` is the position of the whole event while `EVENTS` keeps
        it.

        Returns:
            False where an earlier call has stored it.
        """
        dead_letter = DeadLetter(
            service=SERVICE_NAME,
            app_key=app_key,
            owner_id=owner_id,
            reason=reason,
            message=redactor.text(message),
            at=self._clock(),
            source=source,
            attempts=attempts,
            key=key,
            body=_mask(body.decode(errors="replace"), self._secrets_of(app_key)),
        )
        subject = subjects.dead_letter(SERVICE_NAME, app_key, owner_id, reason)
        # The app may be any token of a subject, of any length; the source is unique without it.
        message_id = f"{owner_id}:{app_key[:64]}:{source}{once}"
        data = _fit(dead_letter, self._publisher.max_payload)
        stored = tried = False
        for delay_s in RETRY.delays():
            try:
                published = await self._publisher.publish(subject, data, message_id=message_id)
                # A try of this call may have stored it and lost the answer.
                stored = tried or not published.duplicate
                break
            except MillraceError as error:
                log.warning(
                    "dead_letter_publish_failed", source=source, reason=reason, code=error.code, message=error.message
                )
            tried = True
            await asyncio.sleep(delay_s)
        if stored:
            self._metrics.count("millrace_hooks_dead_letters_total", reason=reason)
        return stored


def _fit(dead_letter: DeadLetter, max_bytes: int) -> bytes:
    data = encode(dead_letter)
    room = max_bytes - ENVELOPE_BYTES
    body = dead_letter.body
    while len(data) > room:
        # A character becomes six bytes of JSON at most, so halving ends soon.
        body = body[: min(room, len(body) // 2)]
        message = f"{dead_letter.message}; the body is cut here"
        data = encode(msgspec.structs.replace(dead_letter, body=body, message=message, cut=True))
    return data


def _mask(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        # As it is, and as a string of JSON has it. The `***` leaves JSON what it was.
        for form in {secret, json.dumps(secret)[1:-1]}:
            if len(form) >= MIN_SECRET_CHARS:
                text = text.replace(form, MASK)
    return text
