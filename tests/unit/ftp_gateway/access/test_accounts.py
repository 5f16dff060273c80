import asyncssh
import pytest

from ftp_gateway.access.accounts import Account, Passwords, login_name, parse_keys, parse_networks, split_login
from shared.errors import InvalidError

ED25519 = asyncssh.generate_private_key("ssh-ed25519", "cron@shop")


def public(key: asyncssh.SSHKey) -> str:
    return key.export_public_key().decode()


def test_a_login_is_the_app_and_the_user() -> None:
    assert ("shop", "nightly") == split_login(login_name("shop", "nightly"))
    for login in ("shop", "shop.", ".nightly", "shop.a.b", "shop./x", "../x", "shop.\n", "x" * 65 + ".a"):
        assert split_login(login) is None


@pytest.mark.parametrize(
    ("address", "admitted"),
    [
        ("203.0.113.7", True),
        ("::ffff:203.0.113.7", True),
        ("203.0.114.1", False),
        ("2001:db8::1", True),
        ("fe80::1%eth0", False),
        ("", False),
    ],
)
def test_an_address_is_admitted_by_its_network(address: str, admitted: bool) -> None:
    account = Account(app_key="shop", name="a", networks=parse_networks(["203.0.113.0/24", "2001:db8::/32"]))

    assert admitted == account.allows_address(address)
    assert Account(app_key="shop", name="a").allows_address(address)


def test_a_wrong_network_is_named() -> None:
    with pytest.raises(InvalidError) as refused:
        parse_networks(["10.0.0.0/8", "everywhere"])
    assert refused.value.field == "allowed_ips[1]"


def test_a_key_line_is_the_blob_that_a_client_shows() -> None:
    assert parse_keys([public(ED25519)]) == {ED25519.public_data}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 AAAA!",
        "ssh-ed25519 AAAA",
        "ssh-dss " + public(ED25519).split()[1],
        "ssh-rsa " + public(ED25519).split()[1],
        'command="id" ' + public(ED25519),
        public(asyncssh.generate_private_key("ssh-rsa", key_size=1024)),
    ],
    ids=["nothing", "no key", "no base64", "cut", "dss", "another type", "options", "short rsa"],
)
def test_a_line_that_is_no_good_key_is_named(line: str) -> None:
    with pytest.raises(InvalidError) as refused:
        parse_keys([public(ED25519), line])
    assert refused.value.field == "public_keys[1]"


async def test_a_password_matches_its_hash_and_no_other() -> None:
    async with Passwords() as passwords:
        stored = await passwords.hash("Güneş-123")

        assert stored.startswith("$argon2id$")
        assert await passwords.verify("Güneş-123", stored)
        assert await passwords.verify("Gu\u0308nes\u0327-123", stored)
        assert not await passwords.verify("Güneş-124", stored)
        assert not await passwords.verify("Güneş-123", None)
        assert not await passwords.verify("Güneş-123", "no hash")
