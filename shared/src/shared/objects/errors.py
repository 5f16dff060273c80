"""
Errors of obstore, translated into those of `shared.errors`.

obstore puts a provider's code in the text of its errors only (developmentseed/obstore#281). Only this file reads it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from obstore import exceptions as obstore_exceptions

from shared.aws.codes import HINTS, kind_of
from shared.errors import (
    KINDS,
    BusyError,
    ConflictError,
    CredentialsError,
    DeniedError,
    InvalidError,
    MillraceError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)
from shared.outgoing.addresses import unreachable
from shared.outgoing.relay_connection import FAILURES

STORE_ERRORS: Final = (obstore_exceptions.BaseError, OSError, ValueError)
"""Errors of obstore; it raises built-in ones for a missing object, a lack of permission and a bad path."""

AZURE_CODES: Final[dict[str, type[MillraceError]]] = {
    "AuthenticationFailed": CredentialsError,
    "InvalidAuthenticationInfo": CredentialsError,
    "NoAuthenticationInformation": CredentialsError,
    "KeyBasedAuthenticationNotPermitted": DeniedError,
    "AccountIsDisabled": DeniedError,
    "AuthorizationFailure": DeniedError,
    "AuthorizationPermissionMismatch": DeniedError,
    "AuthorizationProtocolMismatch": DeniedError,
    "InsufficientAccountPermissions": DeniedError,
    "PublicAccessNotPermitted": DeniedError,
    "ContainerDisabled": DeniedError,
    "BlobImmutableDueToPolicy": DeniedError,
    "ContainerNotFound": NotFoundError,
    "BlobNotFound": NotFoundError,
    "ResourceNotFound": NotFoundError,
    "BlobAlreadyExists": ConflictError,
    "UnauthorizedBlobOverwrite": ConflictError,
    "ConditionNotMet": ConflictError,
    "AccountBeingCreated": BusyError,
    "ContainerBeingDeleted": BusyError,
    "ServerBusy": BusyError,
    "OperationTimedOut": UnavailableError,
    "RequestBodyTooLarge": TooLargeError,
    "AccountRequiresHttps": InvalidError,
    "InvalidResourceName": InvalidError,
}
"""The kind of each code that Azure answers where its status does not tell it (Storage services REST, error codes)."""

AZURE_HINTS: Final[dict[str, str]] = {
    "AuthenticationFailed": "The key or signature is wrong or has ended, or the clock of this machine is off.",
    "InvalidAuthenticationInfo": "The key or signature is wrong or has ended, or the clock of this machine is off.",
    "KeyBasedAuthenticationNotPermitted": "The account forbids its keys: allow storage account key access.",
    "AuthorizationFailure": "A firewall of the account blocks this address, or its key is not allowed.",
    "AuthorizationPermissionMismatch": "The key is valid but may not do this.",
    "AuthorizationProtocolMismatch": "The account takes HTTPS only.",
    "InsufficientAccountPermissions": "The account allows no reading, or no writing, at present.",
    "AccountRequiresHttps": "The account takes HTTPS only.",
    "PublicAccessNotPermitted": "The account disallows anonymous reading.",
    "BlobImmutableDueToPolicy": "The container keeps what is in it: an immutability policy forbids to delete.",
    "ContainerNotFound": "The container does not exist.",
    "ContainerDisabled": "The container is disabled.",
    "ContainerBeingDeleted": "The container is being deleted.",
    "ResourceNotFound": "The account does not exist under this address.",
    "AccountIsDisabled": "Azure has disabled the account.",
    "AccountBeingCreated": "The account is still being made: try again in a minute.",
    "InvalidResourceName": "This is no name that a container can have.",
    "ServerBusy": "The provider asks to slow down; nothing is wrong with the key.",
    "OperationTimedOut": "The provider has trouble of its own; nothing is wrong with the key.",
    "InternalError": "The provider has trouble of its own; nothing is wrong with the key.",
}
"""Remedies for an operator, by code."""

RELAYED: Final = {status: failure for failure, status in FAILURES.items()}
"""Reasons by the status that the relay of `shared.outgoing` answers in the place of a host."""

REDIRECT: Final = "redirect without LOCATION"
"""Text of obstore for a redirect without a target, with which S3 answers for a bucket in another region."""

NETWORK: Final[dict[str, str]] = {
    "HostNotFound": r'"dns error"',
    "CertificateInvalid": r"InvalidCertificate",
    "TlsFailed": r"kind: InvalidData,\s+error: \w+|tls handshake",
    "Timeout": r"kind: Timeout|TimedOut",
    "ConnectionClosed": r"IncompleteMessage|IncompleteBody|ConnectionReset|BrokenPipe|SendRequest",
    "ConnectionFailed": r"kind: Connect\b",
}
"""Codes for failures without an answer of a host that is reached directly, each with the text in obstore's trace that
shows it. The first match counts."""

_OURS: Final = {kind.__name__: kind for kind in KINDS.values()}


def store_code(error: BaseException | None) -> str | None:
    """The provider's own code, such as `NoSuchBucket`, of an error of obstore or of ours that was raised from one."""
    while error is not None:
        if code := code_in(error):
            return code
        error = error.__cause__
    return None


def store_status(error: BaseException | None) -> int | None:
    """The provider's HTTP status of such an error."""
    while error is not None:
        if status := status_in(error):
            return status
        error = error.__cause__
    return None


def network_code(error: BaseException | None) -> str | None:
    """Reason for a missing or unusable answer of such an error: `Redirect`, a key of `NETWORK` or one of `RELAYED`."""
    while error is not None:
        if (failure := RELAYED.get(_status_in(error) or 0)) is not None:
            return failure
        text, _, trace = str(error).partition("\n\nDebug source:")
        if REDIRECT in text:
            return "Redirect"
        if "HTTP error" in text:
            return next((code for code, sign in NETWORK.items() if re.search(sign, trace)), None)
        error = error.__cause__
    return None


def is_outage(error: MillraceError) -> bool:
    """
    Return whether the provider itself fails: it is not reached, is silent, or answers with 5xx. Another one may then
    take its place, which it may not where keys or permissions are refused.
    """
    return isinstance(error, UnavailableError) or (error.retryable and (store_status(error) or 0) >= 500)


def store_error(error: BaseException, doing: str) -> MillraceError:
    """An error of obstore as one of ours. The message names what was tried and the provider's code; it holds no key."""
    text, _, _ = str(error).partition("\n\nDebug source:")
    if provider := re.search(r"External AWS credential provider: (\w+): (.*)", text, re.DOTALL):
        return _OURS.get(provider[1], UnavailableError)(provider[2])
    code, status = code_in(error), status_in(error)
    if code is not None or status is not None:
        kind = AZURE_CODES.get(code or "") or kind_of(code, status)
        said = HINTS.get(code or "") or AZURE_HINTS.get(code or "")
        return kind(f"cannot {doing}: {code or status}" + (f": {said}" if said else ""))
    failure = network_code(error)
    if failure == "PrivateAddress":
        return unreachable()
    if failure in {"LeadsElsewhere", "OtherHost"}:
        return InvalidError(f"cannot {doing}: the host leads elsewhere, and no redirect is followed")
    if REDIRECT in text:
        said = "its host leads to another address" if "MicrosoftAzure" in text else HINTS["PermanentRedirect"]
        return InvalidError(f"cannot {doing}: {said}")
    if isinstance(error, FileNotFoundError):
        return NotFoundError(f"cannot {doing}: it is not there")
    if isinstance(error, PermissionError | obstore_exceptions.PermissionDeniedError):
        return DeniedError(f"cannot {doing}: the permission is missing")
    if isinstance(error, obstore_exceptions.AlreadyExistsError):
        return ConflictError(f"cannot {doing}: it is there already")
    if isinstance(error, ValueError | obstore_exceptions.InvalidPathError | obstore_exceptions.NotSupportedError):
        return InvalidError(f"cannot {doing}: {text[:300]}")
    if failure is None and "HTTP error" not in text:
        return UnavailableError(f"cannot {doing}: its answer makes no sense")
    why = "the name of its host is not known" if failure == "HostNotFound" else "it cannot be reached"
    return UnavailableError(f"cannot {doing}: {why}")


def code_in(error: BaseException) -> str | None:
    found = re.search(r"<Code>\s*([\w.]{1,64})\s*</Code>", str(error))
    return found[1] if found else None


def status_in(error: BaseException) -> int | None:
    status = _status_in(error)
    return None if status in RELAYED else status


def _status_in(error: BaseException) -> int | None:
    found = re.search(r"(?:status code: |\(code: )(\d{3})\b", str(error))
    return int(found[1]) if found else None


@contextmanager
def translated(doing: str, place: str) -> Iterator[None]:
    try:
        yield
    except STORE_ERRORS as error:
        raise store_error(error, f"{doing} in {place}") from error
