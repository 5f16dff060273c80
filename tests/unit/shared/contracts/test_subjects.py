"""Names, partitions and permissions."""

import base64
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts import streams, subjects
from shared.contracts.grants import GRANTS, permissions
from shared.contracts.profile_keys import profile_key, profile_keys
from shared.contracts.streams import Bucket, Stream
from shared.contracts.subjects import PARTITIONS, partition_of
from shared.errors import InvalidError

STREAMS = [thing for thing in vars(streams).values() if isinstance(thing, Stream)]
BUCKETS = [thing for thing in vars(streams).values() if isinstance(thing, Bucket)]


def test_limits_of_streams_fit_on_a_small_machine() -> None:
    # JetStream reserves them, of three quarters of the free disk.
    assert sum(one.max_bytes for one in (*streams.STREAMS[1:], *streams.BUCKETS)) < 4 << 30


def matches(pattern: str, subject: str) -> bool:
    """Subject matching as NATS does it."""
    wanted, given_ = pattern.split("."), subject.split(".")
    for index, token in enumerate(wanted):
        if token == ">":
            return len(given_) > index
        if index >= len(given_) or token not in {"*", given_[index]}:
            return False
    return len(wanted) == len(given_)


def allowed(user: str, subject: str) -> bool:
    return any(matches(pattern, subject) for pattern in permissions(user).publish)


@given(st.text(min_size=1))
def test_a_partition_is_the_crc32_of_the_user_modulo_the_number_of_partitions(user_id: str) -> None:
    if any(0xD800 <= ord(char) <= 0xDFFF for char in user_id):
        return
    assert partition_of(user_id) == zlib.crc32(user_id.encode("utf-8")) % PARTITIONS


def test_the_partition_of_a_known_user_never_changes() -> None:
    assert [partition_of(user) for user in ("12345", "ayşe", "user-1")] == [
        zlib.crc32(b"12345") % 16,
        zlib.crc32("ayşe".encode()) % 16,
        zlib.crc32(b"user-1") % 16,
    ]


@pytest.mark.parametrize("bad", ["", "a b", "a.b", "a*", "ş", "x" * 65, "../x", "a\n"])
def test_an_app_key_that_could_break_a_subject_is_refused(bad: str) -> None:
    with pytest.raises(InvalidError) as error:
        subjects.check_app_key(bad)

    assert error.value.field == "app_key"


@given(
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1),
)
def test_profile_keys_differ_when_external_ids_do(one: str, other: str) -> None:
    assert (profile_key("shop", one) == profile_key("shop", other)) == (one == other)
    assert set(profile_key("shop", one)) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567.shop")


@given(st.lists(st.text(max_size=20) | st.text("ğ漢x", min_size=300, max_size=1024)))
def test_keys_made_together_are_those_made_one_by_one(ext_ids: list[str]) -> None:
    assert [profile_key("shop", ext_id) for ext_id in ext_ids] == profile_keys("shop", ext_ids)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_key_fits_into_a_control_line_however_long_the_external_id_is(ext_id: str) -> None:
    # nats-server closes the connection of a client whose control line has more than 4,096 bytes.
    keys = {profile_key("a" * 64, (ext_id * 3000)[:length]) for length in (1, 256, 1024, 3000)}

    assert all(len(key) < 2048 for key in keys)
    assert all(set(key) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567.sha256-0123456789abcdef") for key in keys)


def test_keys_of_the_release_before_are_those_of_now() -> None:
    ext_id = "ğ" * 256

    assert f"shop.{base64.b32encode(ext_id.encode()).decode().rstrip('=')}" == profile_key("shop", ext_id)


def test_no_two_streams_take_the_same_subject() -> None:
    taken = [subject for stream in STREAMS for subject in stream.subjects]

    assert not [(a, b) for a in taken for b in taken if a != b and matches(a, b)]
    assert len({thing.name for thing in STREAMS}) == len(STREAMS)
    assert len({bucket.name for bucket in BUCKETS}) == len(BUCKETS)


def test_events_are_kept_for_at_least_48_hours_and_never_thrown_away() -> None:
    assert streams.EVENTS.max_age_s >= 48 * 3600
    assert streams.EVENTS.refuses_when_full


@pytest.mark.parametrize("user", [user for user, grant in GRANTS.items() if grant.serves])
def test_the_server_need_not_remember_where_a_scan_could_be_answered(user: str) -> None:
    scanned = {name for name, _ in GRANTS[user].scans}

    assert scanned == {name for name in scanned if allowed(user, f"$JS.ACK.{name}.anything.1.2.3.4.5")}


DELETERS = {"hooks": {streams.DLQ}, "ftp-gateway": {streams.PUSH, streams.PROFILE_UPDATES}}


@pytest.mark.parametrize("user", GRANTS)
def test_no_user_may_delete_a_stream_and_few_may_delete_messages(user: str) -> None:
    assert not [name for name in STREAMS if allowed(user, f"$JS.API.STREAM.DELETE.{name.name}")]
    for verb in ("PURGE", "MSG.DELETE"):
        found = {stream for stream in STREAMS if allowed(user, f"$JS.API.STREAM.{verb}.{stream.name}")}
        assert DELETERS.get(user, set()) == found
    assert not [bucket for bucket in BUCKETS if allowed(user, f"$JS.API.STREAM.PURGE.{bucket.stream}")]


@pytest.mark.parametrize("user", GRANTS)
def test_no_user_may_subscribe_to_the_inbox_of_another(user: str) -> None:
    heard = [pattern for pattern in permissions(user).subscribe if pattern.startswith("_INBOX")]

    assert heard == [f"_INBOX_{user}.>"]


@pytest.mark.parametrize(
    ("user", "key"),
    [
        ("storage", "connectors.shop.kinesis"),
        ("storage", "tokens.abc"),
        ("hooks", "connectors.shop.amazon-storage"),
        ("hooks", "ftp_users.shop.nightly"),
        ("ftp-gateway", "hooks.shop.purchases"),
        ("exporter", "connectors.shop.kinesis"),
        ("exporter", "tokens.abc"),
        ("publisher", "tokens.abc"),
    ],
)
def test_a_service_may_not_touch_anothers_configuration(user: str, key: str) -> None:
    assert not allowed(user, f"$KV.CONFIG.{key}")
    read = f"$JS.API.CONSUMER.CREATE.KV_CONFIG.x.$KV.CONFIG.{key}"
    assert not allowed(user, read) or key.startswith("tokens.")
    assert not allowed(user, "$JS.API.STREAM.MSG.GET.KV_CONFIG")


def test_only_senders_of_events_may_publish_them() -> None:
    may = {user for user in GRANTS if allowed(user, "events.shop.3")}

    assert may == {"hooks", "publisher", "push-engine"}


@pytest.mark.parametrize(
    "bad",
    [
        "",
        ".",
        "a..b",
        ".a",
        "a.",
        "a b",
        "a\tb",
        "a\nb",
        "a\0b",
        "a\u2028b",
        "a.*",
        "a.>",
        "x" * 2049,
        "\N{EURO SIGN}" * 683,
    ],
)
def test_subject_that_may_not_reach_the_wire_is_refused(bad: str) -> None:
    for several in ((bad,), ("events.shop.1", bad), (bad, "events.shop.1")):
        with pytest.raises(InvalidError) as refused:
            subjects.check_subjects(several)
        assert refused.value.field == "subject"
        assert f"of {len(bad)} characters" in refused.value.message


@given(st.lists(st.text(st.characters(codec="utf-8", categories=("L", "N", "S")), min_size=1, max_size=60), min_size=1))
def test_sound_subjects_pass_together_as_they_do_alone(tokens: list[str]) -> None:
    sound = [token.replace("*", "_").replace(">", "_") for token in tokens]

    subjects.check_subjects([*sound, "a" * 2048, "events.shop.1"])
    for one in sound:
        subjects.check_subjects((one,))


def test_filters_may_have_wildcards() -> None:
    for found in (subjects.EVERY_EVENT, "$KV.CONFIG.>"):
        subjects.check_subjects((found,), wildcards=True)


@pytest.mark.parametrize("app_key", ["x" * 3000, "a b", "\N{EURO SIGN}", "", "*", ">"])
def test_dead_letter_of_an_app_that_cannot_be_has_a_subject(app_key: str) -> None:
    assert "dlq.hooks.-.entrance.invalid" == subjects.dead_letter("hooks", app_key, "entrance", "invalid")
