"""Admission of connections under load: limits in total and per address. Those that are not signed in end first."""

from ftp_gateway.sftp.connection_limits import ConnectionLimits


def come(limits: ConnectionLimits, connection: str, address: str, turned_out: list[str]) -> bool:
    if not limits.has_room(address):
        return False
    limits.add(connection, address, lambda: turned_out.append(connection))
    return True


def test_an_address_and_the_whole_have_room_for_so_many() -> None:
    limits, out = ConnectionLimits(3, 2), list[str]()

    assert come(limits, "a", "1.1.1.1", out)
    limits.mark_signed_in("a")
    assert come(limits, "b", "1.1.1.1", out)
    limits.mark_signed_in("b")
    assert not come(limits, "c", "1.1.1.1", out)
    assert come(limits, "d", "2.2.2.2", out)
    assert not come(limits, "e", "3.3.3.3", out)
    limits.remove("a")
    limits.remove("a")
    assert come(limits, "f", "1.1.1.1", out)


def test_addresses_of_one_64_are_one() -> None:
    limits, out = ConnectionLimits(10, 1), list[str]()

    assert come(limits, "a", "2001:db8::1", out)
    assert not come(limits, "b", "2001:db8::2", out)
    assert come(limits, "c", "2001:db8:0:1::1", out)


def test_the_oldest_connection_that_is_not_signed_in_makes_room() -> None:
    limits, out = ConnectionLimits(8, 8), list[str]()
    for number in range(4):
        assert come(limits, str(number), "1.1.1.1", out)
    limits.mark_signed_in("0")
    assert come(limits, "4", "1.1.1.1", out)
    assert [] == out

    assert come(limits, "5", "1.1.1.1", out)

    assert ["1"] == out
