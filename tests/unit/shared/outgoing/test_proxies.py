"""The proxy of a URL by HTTP_PROXY, HTTPS_PROXY and NO_PROXY."""

import pytest

from shared.errors import InvalidError
from shared.outgoing.proxies import Proxies

PROXY = "http://proxy.corp:3128"


def via(no_proxy: str, url: str) -> bool:
    """Whether the proxy is used."""
    return Proxies(PROXY, PROXY, no_proxy).of(url) is not None


def test_each_scheme_has_a_proxy_of_its_own() -> None:
    proxies = Proxies("http://one:1", "http://two:2")

    assert ("http://one:1", "http://two:2") == (proxies.of("http://a.example"), proxies.of("https://a.example"))
    assert Proxies(https=PROXY).of("http://a.example") is None
    assert Proxies().of("https://a.example") is None


@pytest.mark.parametrize(
    ("no_proxy", "url"),
    [
        ("*", "https://a.example"),
        ("a.example", "https://a.example"),
        ("a.example", "https://A.EXAMPLE./x"),
        ("other, a.example ,", "https://a.example:9000"),
        ("a.example", "https://sub.a.example"),
        (".a.example", "https://sub.a.example"),
        (".a.example", "https://a.example"),
        ("*.a.example", "https://sub.a.example"),
        ("a.example:443", "https://a.example"),
        ("a.example:9000", "https://a.example:9000"),
        ("10.1.2.3", "https://10.1.2.3"),
        ("10.0.0.0/8", "https://10.1.2.3"),
        ("fd00::/8", "https://[fd00::1]:9000"),
        ("[fd00::1]", "https://[fd00::1]"),
        ("10.1.2.3:9000", "https://10.1.2.3:9000"),
        ("", "https://127.0.0.1:5000"),
        ("", "https://[::1]"),
        ("", "http://localhost"),
    ],
)
def test_excluded_host_is_reached_directly(no_proxy: str, url: str) -> None:
    assert not via(no_proxy, url)


@pytest.mark.parametrize(
    ("no_proxy", "url"),
    [
        ("", "https://a.example"),
        ("a.example", "https://ba.example"),
        ("sub.a.example", "https://a.example"),
        ("a.example:9000", "https://a.example"),
        ("10.0.0.0/8", "https://11.1.2.3"),
        ("10.0.0.0/8", "https://a.example"),
        (",,", "https://a.example"),
        (".", "https://a.example"),
    ],
)
def test_any_other_host_is_reached_by_the_proxy(no_proxy: str, url: str) -> None:
    assert via(no_proxy, url)


@pytest.mark.parametrize("proxy", ["proxy.corp:3128", "socks5://proxy.corp", "http://", "http://u:secret@proxy:port"])
def test_proxy_that_is_no_url_is_refused_and_not_shown(proxy: str) -> None:
    with pytest.raises(InvalidError) as caught:
        Proxies(https=proxy).check()

    assert "https_proxy" == caught.value.field
    assert "secret" not in caught.value.message


def test_passwords_are_known_as_secrets() -> None:
    assert ("secret",) == Proxies("http://u:secret@proxy:1", PROXY).passwords
