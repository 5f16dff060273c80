"""
Private names of aiobotocore and botocore that we use: the only file that names them.

Five things have no public way: keys of a session that renew themselves, reading the keys of a client, dropping them,
turning off two habits of S3's client, and sending by a client of ours (`shared.aws.sdk_session`). `check_internals`
runs when the clients of a process are made. shared/pyproject.toml bounds aiobotocore, which pins botocore.
"""

from typing import Any

# aiobotocore and botocore bring no types: what comes from them is Any.
from aiobotocore.credentials import AioDeferredRefreshableCredentials  # type: ignore[import-untyped]
from aiobotocore.httpsession import AIOHTTPSession  # type: ignore[import-untyped]
from aiobotocore.session import AioSession  # type: ignore[import-untyped]
from aiobotocore.utils import AioS3RegionRedirectorv2  # type: ignore[import-untyped]
from botocore import handlers  # type: ignore[import-untyped]
from botocore.client import BaseClient  # type: ignore[import-untyped]
from botocore.session import Session  # type: ignore[import-untyped]
from botocore.signers import RequestSigner  # type: ignore[import-untyped]

from shared.runtime.internals import mentions, refuse_moved_names


def check_internals() -> None:
    """Check the private names. Raises `UnavailableError` when this aiobotocore or botocore has moved one."""
    refuse_moved_names(
        "aiobotocore",
        {
            "AioDeferredRefreshableCredentials.get_frozen_credentials": hasattr(
                AioDeferredRefreshableCredentials, "get_frozen_credentials"
            ),
            "AioDeferredRefreshableCredentials._frozen_credentials": mentions(
                getattr(AioDeferredRefreshableCredentials, "refresh_needed", None), "_frozen_credentials"
            ),
            "AioS3RegionRedirectorv2.redirect_from_error: s3_redirect, redirected": mentions(
                getattr(AioS3RegionRedirectorv2, "redirect_from_error", None), "s3_redirect", "redirected"
            ),
            "AIOHTTPSession.send: _get_session": mentions(getattr(AIOHTTPSession, "send", None), "_get_session"),
            "AIOHTTPSession._timeout": mentions(AIOHTTPSession.__init__, "_timeout"),
        },
    )
    refuse_moved_names(
        "botocore",
        {
            "BaseClient._request_signer": mentions(BaseClient.__init__, "_request_signer"),
            "RequestSigner._credentials": mentions(RequestSigner.__init__, "_credentials"),
            "Session._credentials": mentions(Session.get_credentials, "_credentials"),
            "handlers.add_expect_header on before-call.s3": ("before-call.s3", _expect_handler())
            in [entry[:2] for entry in handlers.BUILTIN_HANDLERS],
        },
    )


def renew_keys(session: AioSession, refresh: Any) -> None:
    """Set the keys of a session to ones that `refresh` renews."""
    session._credentials = AioDeferredRefreshableCredentials(refresh, "assume-role")


async def frozen_keys(client: Any) -> Any:
    """The keys with which a client signs now, renewed when it is time."""
    return await client._request_signer._credentials.get_frozen_credentials()


def keys_end_within(client: Any, seconds: float) -> bool:
    """Return whether the keys of a client that renews them end within this time."""
    return bool(client._request_signer._credentials.refresh_needed(refresh_in=seconds))


def drop_keys(client: Any, keys: Any) -> None:
    """Forget the keys of a client that renews them, where they are still these: the next call has new ones."""
    credentials = client._request_signer._credentials
    if credentials._frozen_credentials is keys:
        credentials._frozen_credentials = None


def disable_s3_habits(client: Any) -> None:
    """Turn off `Expect: 100-continue` and the following of a bucket into another region."""
    # With Expect, a PUT waits for "100 Continue" under no timeout at all (aio-libs/aiobotocore#1001).
    client.meta.events.unregister("before-call.s3", _expect_handler())
    client.meta.events.register("before-call.s3", _mark_redirected)


def _expect_handler() -> Any:
    return getattr(handlers, "add_expect_header", None)


def _mark_redirected(context: dict[str, Any], **_: Any) -> None:
    """Tell `S3RegionRedirector` that it has redirected this request already."""
    context.setdefault("s3_redirect", {})["redirected"] = True
