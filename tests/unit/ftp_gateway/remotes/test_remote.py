"""Targets of a remote's files, its poll times and backoff, and the alerts of its failures."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ftp_gateway.model.virtual_paths import Place, kind_of
from ftp_gateway.remotes.backoff import ALERT_AFTER, LONGEST_BACKOFF_S, failure_after, first_poll_at, next_poll_at
from ftp_gateway.remotes.remote import Remote, UnknownHostError, archive_name, download_name, in_directory, place_of
from ftp_gateway.remotes.state import PullProgress, RemoteFailure
from shared.config.secret import Secret
from shared.errors import BusyError, ConflictError, CredentialsError, MillraceError, NotFoundError, UnavailableError

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)


def remote(**changed: Any) -> Remote:
    given: dict[str, Any] = {"protocol": "sftp", "host": "sftp.shop.example", "username": "m", "password": Secret("p")}
    return Remote(**(given | changed))


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("push_2026.csv", ""),
        ("crm_2026.txt", "Profile"),
        ("push_2026.csv.filepart", None),
        (".push_2026.csv", None),
        ("push_2026.xlsx", None),
        ("crm_2026.csv", None),
        ("push_/../x.csv", None),
        ("push_\n.csv", None),
        ("push_\\.csv", None),
        ("push_" + "x" * 200 + ".csv", None),
        ("push_\udcff.csv", None),
        ("..", None),
    ],
)
def test_a_file_goes_where_its_name_says(name: str, folder: Any) -> None:
    found = place_of(remote(push=("push_*",), profiles=("crm_*",)), "shop", name)

    assert found == (None if folder is None else Place("shop", folder, name))


@given(st.text())
def test_no_name_of_a_remote_file_leaves_the_tree(name: str) -> None:
    found = place_of(remote(push=("*",), profiles=("*",)), "shop", name)

    assert found is None or (found.name == name and "/" not in name and kind_of(found) is not None)


def test_a_download_is_hidden_under_a_name_of_its_own() -> None:
    names = {download_name("erp", "a.csv"), download_name("erp", "b.csv"), download_name("crm", "a.csv")}

    assert len(names) == 3
    assert [None] * 3 == [kind_of(Place("shop", "", name)) for name in names]


def test_paths_on_the_server() -> None:
    assert ["./a", "/a", "/out/a", "out/a"] == [in_directory(path, "a") for path in (".", "/", "/out/", "out")]
    assert archive_name("a.csv", NOW) == "20261122T030000.000000Z-a.csv"


@pytest.mark.parametrize(
    ("changed", "at"),
    [
        ({}, 22),
        ({"protocol": "ftps"}, 21),
        ({"protocol": "ftps", "tls": "implicit"}, 990),
        ({"protocol": "ftps", "port": 2121}, 2121),
    ],
)
def test_ports_are_the_usual_ones_where_none_is_said(changed: dict[str, Any], at: int) -> None:
    assert remote(**changed).at == ("sftp.shop.example", at)


def test_a_failing_server_is_polled_less_and_less_often() -> None:
    def waits(asked: Remote) -> list[float]:
        return [(next_poll_at(asked, NOW, failures=failures) - NOW).total_seconds() for failures in range(1, 7)]

    assert [120, 240, 480, 960, 1800, 1800] == waits(remote())
    assert [2, 4, 8, 16, 32, 64] == waits(remote(frequency_s=1))
    assert waits(remote()) == waits(remote(frequency=1440)) == waits(remote(schedule="30 2 * * *"))
    assert NOW + timedelta(seconds=LONGEST_BACKOFF_S) == next_poll_at(remote(), NOW, failures=10**6)


def test_a_server_is_polled_by_its_frequency_or_its_schedule() -> None:
    nightly = remote(schedule="30 2 * * *", timezone="Europe/Istanbul")

    assert NOW + timedelta(minutes=5) == next_poll_at(remote(frequency=5), NOW)
    assert datetime(2026, 11, 22, 23, 30, tzinfo=UTC) == next_poll_at(nightly, NOW)


@pytest.mark.parametrize(
    ("changed", "seconds"),
    [
        ({"frequency_s": 5}, 5),
        ({"frequency": 60}, 60),
        ({"frequency": 60, "settle_s": 600}, 600),
        ({"schedule": "30 2 * * *"}, 60),
        ({"schedule": "1 3 * * *", "settle_s": 600}, 60),
    ],
)
def test_a_server_with_unfinished_files_is_polled_soon(changed: dict[str, Any], seconds: int) -> None:
    assert NOW + timedelta(seconds=seconds) == next_poll_at(remote(**changed), NOW, unfinished=True)


def test_the_first_poll_is_at_once_unless_a_schedule_sets_its_time() -> None:
    nightly = remote(schedule="30 2 * * *")
    tonight, missed = datetime(2026, 11, 23, 2, 30, tzinfo=UTC), datetime(2026, 11, 22, 2, 30, tzinfo=UTC)
    left = PullProgress(next_look_at=missed, revision=7)
    failing = replace(left, trouble=RemoteFailure(code="unavailable", message="no", since=NOW))

    assert NOW == first_poll_at(remote(frequency=60), 7, replace(left, next_look_at=tonight), NOW)
    assert tonight == first_poll_at(nightly, 7, PullProgress(), NOW)
    assert missed == first_poll_at(nightly, 7, left, NOW)
    assert tonight == first_poll_at(nightly, 8, left, NOW)
    assert NOW == first_poll_at(nightly, 8, failing, NOW)


@pytest.mark.parametrize("error", [CredentialsError("no"), NotFoundError("no"), UnknownHostError("no")])
def test_a_failure_that_needs_a_person_is_reported_at_once_and_once_for_a_configuration(error: MillraceError) -> None:
    first, tell_first = failure_after(None, error, NOW, 5)
    second, tell_second = failure_after(first, error, NOW + timedelta(hours=9), 5)
    _, tell_third = failure_after(second, error, NOW + timedelta(hours=10), 6)

    assert (True, False, True) == (tell_first, tell_second, tell_third)
    assert (NOW, NOW) == (first.since, second.since)


@pytest.mark.parametrize("error", [UnavailableError("no"), BusyError("no"), ConflictError("no")])
def test_a_failure_that_may_pass_is_reported_when_it_lasts(error: MillraceError) -> None:
    first, tell_first = failure_after(None, error, NOW, 5)
    second, tell_second = failure_after(first, error, NOW + ALERT_AFTER - timedelta(seconds=1), 5)
    third, tell_third = failure_after(second, error, NOW + ALERT_AFTER, 5)
    _, tell_fourth = failure_after(third, error, NOW + 2 * ALERT_AFTER, 5)

    assert (False, False, True, False) == (tell_first, tell_second, tell_third, tell_fourth)
