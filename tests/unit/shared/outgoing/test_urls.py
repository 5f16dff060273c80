"""Hosts and URLs that customers enter."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from shared.errors import InvalidError
from shared.outgoing.urls import check_url, is_host

GOOD_HOSTS = ["shop.example", "a.b-c.example", "my_store.example", "xn--grsel-jua.example", "8.8.8.8", "2001:db8::1"]
GOOD_HOSTS += ["a" * 63 + ".example", "minio", "1.example", "x.0a"]
BAD_HOSTS = ["", ".", "a..b.com", ".a.com", "a.com.", "exa mple.com", "ex%00ample.com", "a" * 64 + ".com", "-a.com"]
BAD_HOSTS += [
    "a-.com",
    "a" * 300 + ".com",
    "g\u00f6rsel.example",
    "a,b.com",
    'cdn"x.example',
    "a.com<script>",
    "a\\b.com",
]
BAD_HOSTS += [
    "127.1",
    "0x7f.1",
    "2130706433",
    "010.0.0.1",
    "1.2.3.4.",
    "a.0x7f",
    "a.1",
    "fe80::1%lo",
    "[::1]",
    "a\n.com",
]


@pytest.mark.parametrize("host", GOOD_HOSTS)
def test_host_name_or_address_is_accepted(host: str) -> None:
    assert is_host(host)


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_what_cannot_be_a_host_is_refused(host: str) -> None:
    assert not is_host(host)


@given(st.text(max_size=80) | st.from_regex(r"[a-z0-9._-]{1,80}", fullmatch=True))
@example("a" * 63 + "." + "b" * 63)
def test_every_accepted_host_is_one_to_the_client_too(host: str) -> None:
    if is_host(host) and ":" not in host:
        assert host.lower() == URL(f"https://{host}/").raw_host


@pytest.mark.parametrize("host", [host for host in BAD_HOSTS if host not in {"[::1]"}])
@pytest.mark.parametrize("allow_private", [True, False])
def test_url_of_no_host_is_refused_by_its_field(host: str, allow_private: bool) -> None:
    with pytest.raises(InvalidError) as caught:
        check_url(f"https://{host}", "endpoint_url", allow_private=allow_private)

    assert "endpoint_url" == caught.value.field


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1.:6379",
        "https://localhost",
        "https://10.0.0.8",
        "https://[::1]",
        "https://[::ffff:10.0.0.8]",
        "https://minio:9000",
        "https://127.1",
    ],
)
def test_host_of_our_own_network_is_refused_for_that(url: str) -> None:
    with pytest.raises(InvalidError, match="reachable from the internet"):
        check_url(url, "endpoint_url", allow_private=False)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "shop.example",
        "ftp://shop.example",
        "https://",
        "https://user@shop.example",
        "https://shop.example#part",
        "https://shop.example:port",
        "https://shop.example:0",
        "https://shop.example:65536",
        "https://[::1",
        "https://shop.example/a b",
        "https://shop.example/\n",
        " https://shop.example",
        "https://shop.ex\tample",
        "http://shop.example",
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidError, match="expected https://host"):
        check_url(url, "url", allow_private=False)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9000", "http://minio", "https://[::1]:9000"])
def test_private_hosts_pass_where_the_operator_allows_them(url: str) -> None:
    check_url(url, "url", allow_private=True)


@pytest.mark.parametrize(
    "url", ["https://shop.example:9000", "https://8.8.8.8", "https://[2001:4860:4860::8888]:1/x?y"]
)
def test_host_of_the_internet_passes(url: str) -> None:
    check_url(url, "url", allow_private=False)
