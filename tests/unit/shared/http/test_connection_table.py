"""Limits on open connections, and which one makes room."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidError
from shared.http.connection_table import ConnectionTable, HttpLimits, http_limits
from shared.runtime.settings import Settings

STRANGER = "203.0.113.7"


def table_of(total: int, per_address: int = 0) -> ConnectionTable[str]:
    return ConnectionTable(HttpLimits(total=total, per_address=per_address))


def test_connection_without_a_request_makes_room_before_an_idle_one_and_the_oldest_first() -> None:
    table = table_of(4)
    for name in ("idle", "busy", "new 1", "new 2"):
        assert table.add(name, STRANGER, 10) is None
    table.set_busy("idle")
    table.set_busy("busy")
    table.set_idle("idle", 10)

    assert ["new 1", "new 2"] == [table.add("a", STRANGER, 10), table.add("b", STRANGER, 10)]
    table.set_busy("a")
    table.set_busy("b")
    assert "idle" == table.add("c", STRANGER, 10)
    table.set_busy("c")
    assert "d" == table.add("d", STRANGER, 10)
    assert 4 == len(table)


def test_address_at_its_limit_makes_room_itself() -> None:
    table = table_of(100, per_address=2)
    table.add("other", "198.51.100.1", 10)
    table.add("a", STRANGER, 10)
    table.add("b", STRANGER, 10)

    assert "a" == table.add("c", STRANGER, 10)
    table.set_busy("b")
    table.set_busy("c")
    assert "d" == table.add("d", STRANGER, 10)
    assert table.add("e", "198.51.100.2", 10) is None


def test_network_of_ipv6_counts_as_one_address() -> None:
    table = table_of(100, per_address=1)
    table.add("a", "2001:db8::1", 10)

    assert "a" == table.add("b", "2001:db8::2", 10)
    assert table.add("c", "2001:db8:0:1::1", 10) is None


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.1.2.3", "192.0.2.9"])
def test_loopback_and_trusted_proxies_have_no_limit_of_an_address(address: str) -> None:
    settings = Settings(http_connections_per_address=1, http_trusted_proxies="10.0.0.0/8, 192.0.2.9")
    table: ConnectionTable[int] = ConnectionTable(http_limits(settings, 65_536))

    assert [None] * 50 == [table.add(number, address, 10) for number in range(50)]


def test_deadline_passes_and_is_renewed() -> None:
    table = table_of(10)
    table.add("a", STRANGER, 10)
    table.add("b", STRANGER, 20)

    assert [] == table.expired(9)
    assert ["a"] == table.expired(10)
    table.set_busy("a")
    assert [] == table.expired(10)
    table.set_idle("a", 30)
    assert ["b"] == table.expired(25)
    table.remove("b")
    assert [] == table.expired(25)


@pytest.mark.parametrize(
    ("max_files", "total", "per_address"), [(1024, 512, 256), (256, 128, 64), (65_536, 4096, 1024), (2, 1, 1)]
)
def test_limits_stay_within_the_open_files(max_files: int, total: int, per_address: int) -> None:
    limits = http_limits(Settings(), max_files)

    assert (total, per_address) == (limits.total, limits.per_address)


def test_proxy_that_is_no_network_is_refused() -> None:
    with pytest.raises(InvalidError, match="expected addresses and networks") as refused:
        http_limits(Settings(http_trusted_proxies="10.0.0.0/8,nonsense"), 1024)

    assert "http_trusted_proxies" == refused.value.field


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["add", "busy", "idle", "remove"]), st.integers(0, 30), st.integers(0, 3)),
        max_size=60,
    ),
    total=st.integers(1, 8),
    per_address=st.integers(0, 4),
)
def test_no_limit_is_ever_passed_and_no_request_in_progress_is_closed(
    steps: list[tuple[str, int, int]], total: int, per_address: int
) -> None:
    table: ConnectionTable[int] = ConnectionTable(HttpLimits(total=total, per_address=per_address))
    address_of: dict[int, int] = {}
    busy: set[int] = set()
    for step, connection, address in steps:
        if step == "add" and connection not in address_of:
            closed = table.add(connection, f"203.0.113.{address}", 10)
            if closed is not None:
                assert closed not in busy
                address_of.pop(closed, None)
            if closed != connection:
                address_of[connection] = address
        elif step == "busy" and connection in address_of:
            table.set_busy(connection)
            busy.add(connection)
        elif step == "idle" and connection in busy:
            table.set_idle(connection, 10)
            busy.discard(connection)
        elif step == "remove":
            table.remove(connection)
            address_of.pop(connection, None)
            busy.discard(connection)
        of_address = [list(address_of.values()).count(number) for number in range(4)]
        assert len(table) == len(address_of) <= total
        assert not per_address or max(of_address) <= per_address
        assert set(table.waiting()) == set(address_of) - busy
        assert set(table.expired(10)) == set(address_of) - busy
