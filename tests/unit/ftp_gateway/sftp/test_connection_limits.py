"""Who is let in when many come: by number, by address, and strangers last."""

from ftp_gateway.sftp.connection_limits import ConnectionLimits


def come(crowd: ConnectionLimits, visitor: str, address: str, turned_out: list[str]) -> bool:
    if not crowd.has_room(address):
        return False
    crowd.enter(visitor, address, lambda: turned_out.append(visitor))
    return True


def test_an_address_and_the_whole_have_room_for_so_many() -> None:
    crowd, out = ConnectionLimits(3, 2), list[str]()

    assert come(crowd, "a", "1.1.1.1", out)
    crowd.sign_in("a")
    assert come(crowd, "b", "1.1.1.1", out)
    crowd.sign_in("b")
    assert not come(crowd, "c", "1.1.1.1", out)
    assert come(crowd, "d", "2.2.2.2", out)
    assert not come(crowd, "e", "3.3.3.3", out)
    crowd.leave("a")
    crowd.leave("a")
    assert come(crowd, "f", "1.1.1.1", out)


def test_addresses_of_one_64_are_one() -> None:
    crowd, out = ConnectionLimits(10, 1), list[str]()

    assert come(crowd, "a", "2001:db8::1", out)
    assert not come(crowd, "b", "2001:db8::2", out)
    assert come(crowd, "c", "2001:db8:0:1::1", out)


def test_the_stranger_who_is_there_for_longest_makes_room() -> None:
    crowd, out = ConnectionLimits(8, 8), list[str]()
    for number in range(4):
        assert come(crowd, str(number), "1.1.1.1", out)
    crowd.sign_in("0")
    assert come(crowd, "4", "1.1.1.1", out)
    assert [] == out

    assert come(crowd, "5", "1.1.1.1", out)

    assert ["1"] == out
