"""
Errors of obstore as ours. obstore tells a provider's code in the text of its errors only (developmentseed/obstore#281):
here it is read out, and nowhere else.
"""

import re
from typing import Final

from obstore import exceptions as obstore_exceptions

from shared.aws_codes import HINTS, kind_of
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

STORE_ERRORS: Final = (obstore_exceptions.BaseError, OSError, ValueError)
"""What obstore raises; it takes built-in ones for a missing object, a lack of permission and a bad path."""

AZURE_CODES: Final[dict[str, type[MillraceError]]] = {
    "AuthenticationFailed": CredentialsError,
    "InvalidAuthenticationInfo": CredentialsError,
    "AccountIsDisabled": DeniedError,
    "AuthorizationFailure": DeniedError,
    "AuthorizationPermissionMismatch": DeniedError,
    "InsufficientAccountPermissions": DeniedError,
    "ContainerNotFound": NotFoundError,
    "BlobNotFound": NotFoundError,
    "ResourceNotFound": NotFoundError,
    "BlobAlreadyExists": ConflictError,
    "ContainerBeingDeleted": BusyError,
    "ServerBusy": BusyError,
    "OperationTimedOut": UnavailableError,
    "RequestBodyTooLarge": TooLargeError,
}
AZURE_HINTS: Final[dict[str, str]] = {
    "AuthenticationFailed": "The account key is wrong, or the clock of this machine is off.",
    "AuthorizationFailure": "A firewall of the account blocks this address, or its key is not allowed.",
    "AuthorizationPermissionMismatch": "The key is valid but may not do this.",
    "ContainerNotFound": "The container does not exist.",
    "ResourceNotFound": "The account does not exist under this address.",
    "AccountIsDisabled": "Azure has disabled the account.",
}

_OURS: Final = {kind.__name__: kind for kind in KINDS.values()}


def store_code(error: BaseException | None) -> str | None:
    """The provider's own code, such as `NoSuchBucket`, of an error of obstore or of ours that was raised from one."""
    while error is not None:
        if code := code_in(error):
            return code
        error = error.__cause__
    return None


def store_error(error: BaseException, doing: str) -> MillraceError:
    """An error of obstore as one of ours. The message names what was tried and the provider's code; it holds no key."""
    text, _, trace = str(error).partition("\n\nDebug source:")
    if provider := re.search(r"External AWS credential provider: (\w+): (.*)", text, re.DOTALL):
        return _OURS.get(provider[1], UnavailableError)(provider[2])
    code, status = code_in(error), status_in(error)
    if code is not None or status is not None:
        kind = AZURE_CODES.get(code or "") or kind_of(code, status)
        said = HINTS.get(code or "") or AZURE_HINTS.get(code or "")
        return kind(f"cannot {doing}: {code or status}" + (f": {said}" if said else ""))
    if "redirect without LOCATION" in text:
        return InvalidError(f"cannot {doing}: {HINTS['PermanentRedirect']}")
    if isinstance(error, FileNotFoundError):
        return NotFoundError(f"cannot {doing}: it is not there")
    if isinstance(error, PermissionError | obstore_exceptions.PermissionDeniedError):
        return DeniedError(f"cannot {doing}: the permission is missing")
    if isinstance(error, obstore_exceptions.AlreadyExistsError):
        return ConflictError(f"cannot {doing}: it is there already")
    if isinstance(error, ValueError | obstore_exceptions.InvalidPathError | obstore_exceptions.NotSupportedError):
        return InvalidError(f"cannot {doing}: {text[:300]}")
    if "HTTP error" not in text:
        return UnavailableError(f"cannot {doing}: its answer makes no sense")
    why = "the name of its host is not known" if '"dns error"' in trace else "it cannot be reached"
    return UnavailableError(f"cannot {doing}: {why}")


def code_in(error: BaseException) -> str | None:
    found = re.search(r"<Code>\s*([\w.]+)\s*</Code>", str(error))
    return found[1] if found else None


def status_in(error: BaseException) -> int | None:
    found = re.search(r"(?:status code: |\(code: )(\d{3})\b", str(error))
    return int(found[1]) if found else None
