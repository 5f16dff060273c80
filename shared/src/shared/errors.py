"""
Kinds of failure, as data. No protocol's numbers are here.

    MillraceError(code, retryable)
    |- InvalidError          invalid          no    the input is wrong; says which field and what was expected
    |- UnauthenticatedError  unauthenticated  no    no token, or one that was never issued
    |- DeniedError           denied           no    known, but not allowed
    |- CredentialsError      credentials      no    a customer's key was refused by the customer's provider
    |- NotFoundError         not_found        no    there is no such thing
    |- ConflictError         conflict         no    the thing is there already, or has changed since it was read
    |- TooLargeError         too_large        no    over a limit that trying again cannot change
    |- BusyError             busy             yes   over a limit that time lifts; `retry_after_s` says when
    '- UnavailableError      unavailable      yes   a peer cannot be reached or answered with its own failure

They are caught by the middleware of `shared.http.server` (HTTP status), `shared.messaging.endpoints` (reply),
`shared.messaging.handling` (ack, try again or put aside) and `ftp_gateway.sftp.packets` (SFTP status). Any other
exception that escapes is a bug and is logged with its traceback.
"""

from typing import ClassVar


class MillraceError(Exception):
    """
    A failure that a caller may see.

    Args:
        message: One sentence for a person; never holds a secret.
        field: The path of the offending input field, such as `rows[3].text`.
        retry_after_s: How long the caller should wait, where that is known.
    """

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, field: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s


class InvalidError(MillraceError):
    """The input is wrong; the message says what was expected."""

    code = "invalid"


class UnauthenticatedError(MillraceError):
    """There is no token, or it was never issued."""

    code = "unauthenticated"


class DeniedError(MillraceError):
    """The caller is known and may not do this."""

    code = "denied"


class CredentialsError(MillraceError):
    """A provider refused the credentials that its owner configured."""

    code = "credentials"


class NotFoundError(MillraceError):
    """There is no such thing."""

    code = "not_found"


class ConflictError(MillraceError):
    """The thing exists already, or has changed since it was read."""

    code = "conflict"


class TooLargeError(MillraceError):
    """Over a limit that trying again cannot change."""

    code = "too_large"


class BusyError(MillraceError):
    """Over a limit that time lifts."""

    code = "busy"
    retryable = True


class StreamFullError(BusyError):
    """A stream takes no more until messages of it have gone."""


class UnavailableError(MillraceError):
    """A peer cannot be reached, or answered with a failure of its own."""

    code = "unavailable"
    retryable = True


KINDS: dict[str, type[MillraceError]] = {
    kind.code: kind
    for kind in (
        InvalidError,
        UnauthenticatedError,
        DeniedError,
        CredentialsError,
        NotFoundError,
        ConflictError,
        TooLargeError,
        BusyError,
        UnavailableError,
    )
}
"""Every kind by its code: how an error that crossed NATS becomes an exception again."""
