"""The profile store: merged by the customer's external id."""

import asyncio

import msgspec
import pytest

from shared.contracts.messages import ProfileRow, make_profile_attributes
from shared.contracts.profile_keys import profile_key
from shared.contracts.streams import PROFILES
from shared.errors import TooLargeError
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValueStore
from shared.messaging.provisioning.making import ensure
from shared.profiles.store import Profile, Profiles
from shared.runtime.settings import Settings


def row(ext_id: str, **attributes: int) -> ProfileRow:
    return ProfileRow(id=f"f:{ext_id}", line=1, ext_id=ext_id, attributes=make_profile_attributes(attributes))


@pytest.fixture
async def profiles(bus: Bus, settings: Settings) -> Profiles:
    await ensure(bus, PROFILES, settings)
    return Profiles(bus)


async def test_a_merge_changes_the_passed_fields_and_keeps_the_rest(profiles: Profiles) -> None:
    await profiles.merge("shop", "12345", email="a@example.com", attributes={"city": "İzmir", "age": 25})

    merged = await profiles.merge("shop", "12345", device_token="t1", attributes={"age": 26})

    assert merged == Profile(
        ext_id="12345",
        email="a@example.com",
        device_tokens=("t1",),
        attributes=make_profile_attributes({"city": "İzmir", "age": 26}),
    )
    assert await profiles.get("shop", "12345") == merged


async def test_merging_the_same_again_writes_nothing(profiles: Profiles, bus: Bus) -> None:
    for _ in range(3):
        await profiles.merge("shop", "12345", device_token="t1", attributes={"age": 25})

    assert (await bus.stream_state(PROFILES)).last_sequence == 1


async def test_a_profile_that_would_be_too_large_keeps_no_other_from_being_written(profiles: Profiles) -> None:
    await profiles.merge("shop", "2", attributes={"n": 1})
    rows = [
        row("1", n=2),
        row("2", n=2),
        ProfileRow(id="f:3", line=3, ext_id="2", attributes=make_profile_attributes({"text": "x" * (1 << 20)})),
    ]

    with pytest.raises(TooLargeError, match=r"1 profiles .+ that of '2'"):
        await profiles.merge_all("shop", [*rows, row("3", n=2)])

    found = [await profiles.get("shop", ext_id) for ext_id in ("1", "2", "3")]
    assert [make_profile_attributes({"n": n}) for n in (2, 1, 2)] == [
        profile.attributes for profile in found if profile is not None
    ]


async def test_merges_at_once_lose_nothing(profiles: Profiles) -> None:
    await asyncio.gather(*(profiles.merge("shop", "1", attributes={f"a{n}": n}) for n in range(10)))

    profile = await profiles.get("shop", "1")

    assert profile is not None
    assert profile.attributes == make_profile_attributes({f"a{n}": n for n in range(10)})


async def test_rows_of_one_user_keep_their_order_among_thousands(profiles: Profiles) -> None:
    rows = [row(f"{n % 1500}", n=n) for n in range(3000)]
    for _ in range(2):
        merged = await profiles.merge_all("shop", rows)

        assert {f"{n}": n + 1500 for n in range(1500)} == {
            ext_id: msgspec.json.decode(profile.attributes["n"]) for ext_id, profile in merged.items()
        }
    assert (profile := await profiles.get("shop", "7")) is not None
    assert make_profile_attributes({"n": 1507}) == profile.attributes


async def test_batches_at_once_lose_nothing(profiles: Profiles, bus: Bus) -> None:
    others = Profiles(bus)

    await asyncio.gather(
        *(
            each.merge_all("shop", [row(f"{n}", **{f"{name}{turn}": turn}) for n in range(50)])
            for name, each in (("a", profiles), ("b", others))
            for turn in range(4)
        )
    )

    assert (profile := await profiles.get("shop", "49")) is not None
    assert make_profile_attributes({f"{name}{turn}": turn for name in "ab" for turn in range(4)}) == profile.attributes


async def test_a_deleted_profile_is_created_again(profiles: Profiles, bus: Bus) -> None:
    await profiles.merge("shop", "1", attributes={"old": 1})
    await KeyValueStore(bus, PROFILES).delete(profile_key("shop", "1"))

    await profiles.merge_all("shop", [row("1", new=1), row("2", new=2)])

    assert Profile(ext_id="1", attributes=make_profile_attributes({"new": 1})) == await profiles.get("shop", "1")


async def test_unknown_are_those_without_a_profile(profiles: Profiles, bus: Bus) -> None:
    await profiles.merge_all("shop", [row(f"{n}", n=n) for n in range(1200)])
    await KeyValueStore(bus, PROFILES).delete(profile_key("shop", "3"))

    assert {"3", "x"} == await profiles.unknown("shop", [*(f"{n}" for n in range(1200)), "x"])


async def test_one_apps_profile_is_not_anothers(profiles: Profiles) -> None:
    await profiles.merge("shop", "1", attributes={"city": "Ankara"})

    assert await profiles.get("rival", "1") is None


@pytest.mark.parametrize("ext_id", ["a.b", "*", ">", "a b", "şişe", "x" * 200])
async def test_any_external_id_will_do(profiles: Profiles, ext_id: str) -> None:
    await profiles.merge("shop", ext_id, attributes={"n": 1})

    profile = await profiles.get("shop", ext_id)

    assert profile is not None
    assert profile.ext_id == ext_id


async def test_an_entry_that_is_no_profile_is_written_over_and_holds_up_no_other(profiles: Profiles, bus: Bus) -> None:
    await profiles.merge("shop", "kept", attributes={"age": 1})
    await KeyValueStore(bus, PROFILES).put(profile_key("shop", "spoiled"), b'{"type":"io.nats.jetstream.api.v1"}')

    assert await profiles.get("shop", "spoiled") is None
    merged = await profiles.merge_all("shop", (row("spoiled", age=2), row("kept", size=3)))

    assert make_profile_attributes({"age": 2}) == merged["spoiled"].attributes
    assert make_profile_attributes({"age": 1, "size": 3}) == merged["kept"].attributes
    assert merged["spoiled"] == await profiles.get("shop", "spoiled")
    assert 'millrace_unreadable_entries_total{stream="KV_PROFILES"}' in bus.metrics.render().decode()
