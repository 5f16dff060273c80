"""An aiobotocore or botocore that has moved a private name is refused at start, in one clear line."""

from importlib.metadata import version
from typing import Any

import pytest
from aiobotocore.utils import AioS3RegionRedirectorv2  # type: ignore[import-untyped]
from botocore import handlers  # type: ignore[import-untyped]
from botocore.client import BaseClient  # type: ignore[import-untyped]
from botocore.session import Session  # type: ignore[import-untyped]
from botocore.signers import RequestSigner  # type: ignore[import-untyped]

from shared.aws.clients import AwsClients
from shared.aws.sdk_internals import check_internals
from shared.errors import UnavailableError
from support.outgoing import open_outgoing


def test_installed_release_has_every_name() -> None:
    check_internals()


@pytest.mark.parametrize(
    ("library", "owner", "attribute", "name"),
    [
        ("botocore", BaseClient, "__init__", "BaseClient._request_signer"),
        ("botocore", RequestSigner, "__init__", "RequestSigner._credentials"),
        ("botocore", Session, "get_credentials", "Session._credentials"),
        ("botocore", handlers, "add_expect_header", "handlers.add_expect_header"),
        ("aiobotocore", AioS3RegionRedirectorv2, "redirect_from_error", "AioS3RegionRedirectorv2.redirect_from_error"),
    ],
)
def test_clients_are_refused_with_a_release_that_moved_a_name(
    monkeypatch: pytest.MonkeyPatch, library: str, owner: Any, attribute: str, name: str
) -> None:
    monkeypatch.setattr(owner, attribute, lambda self: None)

    with pytest.raises(UnavailableError) as caught:
        AwsClients(open_outgoing())

    assert f"{library} {version(library)} has moved" in caught.value.message
    assert name in caught.value.message
