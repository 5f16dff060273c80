"""Checks of a webhook before it is saved, and the signature of its requests."""

import base64

import pytest

from hooks.sinks.webhook.config import WebhookConfig
from hooks.sinks.webhook.signing import sign, signing_key
from shared.config.secret import Secret
from shared.errors import InvalidError
from support.servers.webhooks import SECRET, verify


def make(url: str = "https://example.com/hook", secret: str = SECRET) -> WebhookConfig:
    return WebhookConfig(url=url, secret=Secret(secret))


def test_the_published_example_is_signed_as_published() -> None:
    # https://github.com/standard-webhooks/standard-webhooks, test of the reference libraries.
    body = b'{"test": 2432232314}'

    signature = sign(signing_key(make().secret), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)

    assert "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" == signature
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": f"v1,other {signature}",
    }
    assert verify(SECRET, headers, body)
    assert not verify(SECRET, headers, body + b" ")


@pytest.mark.parametrize(
    ("url", "allow_private"),
    [
        ("https://example.com", False),
        ("https://example.com:8443/hooks/in?tenant=1", False),
        ("https://8.8.8.8/hook", False),
        ("http://127.0.0.1:5000/hook", True),
        ("http://receiver/hook", True),
    ],
)
def test_a_good_webhook_is_accepted(url: str, allow_private: bool) -> None:
    make(url).check(allow_private=allow_private, app_key="shop")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook",
        "ftp://example.com",
        "example.com/hook",
        "https:///hook",
        "https://user:password@example.com/hook",
        "https://example.com/hook#part",
        "https://example.com/a b",
        "https://example.com/hook\n",
        "https://[::1/hook",
        "https://example.com:port/hook",
        "https://example..com/hook",
        "https://localhost/hook",
        "https://receiver/hook",
        "https://10.1.2.3/hook",
        "https://169.254.169.254/latest/meta-data",
        "https://[::ffff:127.0.0.1]/hook",
        "https://hooks.internal/hook",
    ],
)
def test_an_address_that_cannot_be_right_is_refused(url: str) -> None:
    with pytest.raises(InvalidError) as caught:
        make(url).check(allow_private=False, app_key="shop")

    assert "url" == caught.value.field


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "whsec_not base64 at all, not base64 at all",
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        "whsek_" + SECRET.removeprefix("whsec_"),
        "whsec_ü" + SECRET.removeprefix("whsec_"),
    ],
)
def test_a_secret_that_signs_nothing_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(InvalidError) as caught:
        make(secret=secret).check(allow_private=False, app_key="shop")

    assert "secret" == caught.value.field
    assert not secret.removeprefix("whsec_") or secret.removeprefix("whsec_") not in str(caught.value)


def test_a_secret_may_lack_its_prefix() -> None:
    bare = make(secret=SECRET.removeprefix("whsec_"))

    assert signing_key(Secret(SECRET)) == signing_key(bare.check(allow_private=False, app_key="shop").secret)
