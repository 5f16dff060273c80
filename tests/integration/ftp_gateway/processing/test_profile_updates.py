"""Messages of `PROFILE_UPDATES` that are none: each becomes a dead letter, and the next one is worked off."""

import asyncio

import pytest

from ftp_gateway.app import SERVICE
from shared.contracts import streams
from shared.contracts.messages import DeadLetter, ProfileBatch, ProfileRow, decode, encode
from shared.contracts.subjects import profile_update
from shared.messaging.bus import Bus
from shared.profiles.store import Profiles
from support.run_service import RunService
from support.stored_messages import messages


@pytest.mark.parametrize("subject", ["profile.update.shop.f1", "profile.update.shop.*", "profile.update.*.*"])
async def test_message_that_is_none_holds_up_no_other(subject: str, run_service: RunService, bus: Bus) -> None:
    row = ProfileRow(id="f2:1", line=1, ext_id="7", email="a@example.com")
    good = ProfileBatch(app_key="shop", file_id="f2", file_name="a.txt", first_line=1, last_line=1, rows=(row,))
    async with run_service(SERVICE):
        await bus.client.request(subject, b"no JSON")
        await bus.publish(profile_update("shop", "f2"), encode(good))
        profiles = Profiles(bus)

        async with asyncio.timeout(20):
            while await profiles.get("shop", "7") is None:
                await asyncio.sleep(0.01)

    [letter] = await messages(bus, streams.DLQ, "dlq.ftp-gateway.>")
    assert "PROFILE_UPDATES:1" == decode(letter.data, DeadLetter).source
