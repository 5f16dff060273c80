"""Consumer of profile updates: reads them from NATS, in order, into the profile store."""

import asyncio
from datetime import UTC, datetime

import structlog

from ftp_gateway import SERVICE_NAME
from shared.contracts import streams, subjects
from shared.contracts.messages import DeadLetter, ProfileBatch, decode, encode
from shared.errors import BusyError, ConflictError, MillraceError
from shared.messaging.bus import Bus
from shared.messaging.handling import consume
from shared.messaging.message import Message
from shared.messaging.pull import Pull
from shared.profiles.store import Profiles

log = structlog.get_logger()

MAX_BODY_CHARS = 64 * 1024
"""Limit of the body of a dead letter. The first rows of a batch that cannot be applied say most."""


class ProfileUpdates:
    """Consumer of `PROFILE_UPDATES`. `close` and `join` are those of `shared.service.Intake`."""

    def __init__(self, bus: Bus, pull: Pull, profiles: Profiles) -> None:
        self._bus = bus
        self._pull = pull
        self._profiles = profiles
        self._finished = asyncio.Event()

    async def run(self) -> None:
        try:
            await consume(self._pull, subjects.PROFILES_CONSUMER, self._apply, self._put_aside)
        finally:
            self._finished.set()

    def close(self) -> None:
        self._pull.close()

    async def join(self) -> None:
        await self._finished.wait()

    async def _apply(self, message: Message) -> None:
        batch = decode(message.data, ProfileBatch)
        try:
            await self._profiles.merge_all(batch.app_key, batch.rows)
        except ConflictError:
            raise BusyError("profiles are being changed by others") from None

    async def _put_aside(self, message: Message, error: MillraceError) -> None:
        app_key, file_id = subjects.parse_profile_update(message.subject)
        dead_letter = DeadLetter(
            service=SERVICE_NAME,
            app_key=app_key,
            owner_id=file_id,
            reason=error.code,
            message=error.message,
            at=datetime.now(UTC),
            source=f"{streams.PROFILE_UPDATES.name}:{message.sequence}",
            attempts=message.delivered,
            body=message.data[:MAX_BODY_CHARS].decode(errors="replace"),
        )
        # A message may come from the subject `profile.update.shop.*`, letter by letter; no other can be made of that.
        owner_id = file_id if subjects.NAME.fullmatch(file_id) else subjects.NO_APP
        subject = subjects.dead_letter(SERVICE_NAME, app_key, owner_id, error.code)
        await self._bus.publish(subject, encode(dead_letter), message_id=f"{SERVICE_NAME}:{dead_letter.source}")
