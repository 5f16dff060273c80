"""A nats-py that has moved a private name is refused at start, in one clear line."""

from importlib.metadata import version

import pytest
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from shared.errors import UnavailableError
from shared.messaging.connection import connect
from shared.messaging.nats_py.internals import check_internals
from shared.runtime.telemetry import Metrics


def test_installed_release_has_every_name() -> None:
    check_internals()


async def test_connect_refuses_a_release_without_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Client, "_send_command")

    with pytest.raises(UnavailableError) as caught:
        async with connect("hooks", "nats://127.0.0.1:1", metrics=Metrics()):
            pass

    assert f"nats-py {version('nats-py')} has moved" in caught.value.message
    assert "Client._send_command" in caught.value.message


@pytest.mark.parametrize(("owner", "name"), [(Client, "Client._ps"), (Subscription, "Subscription._id")])
def test_release_without_an_attribute_is_refused(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    monkeypatch.setattr(owner, "__init__", lambda self: None)

    with pytest.raises(UnavailableError, match=name):
        check_internals()
