"""The kind of error of each AWS code."""

import pytest

from shared.aws.codes import CODES, HINTS, hint_for, kind_of
from shared.errors import (
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


def test_every_code_is_of_one_kind() -> None:
    codes = [code for of_kind in CODES.values() for code in of_kind.split()]

    assert sorted(set(codes)) == sorted(codes)
    assert [] == [code for code in HINTS if code not in codes]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("InvalidAccessKeyId", CredentialsError),
        ("SignatureDoesNotMatch", CredentialsError),
        ("UnrecognizedClientException", CredentialsError),
        ("ExpiredTokenException", CredentialsError),
        ("AccessDenied", DeniedError),
        ("AccessDeniedException", DeniedError),
        ("KMSDisabledException", DeniedError),
        ("NoSuchBucket", NotFoundError),
        ("ResourceNotFoundException", NotFoundError),
        ("SlowDown", BusyError),
        ("ProvisionedThroughputExceededException", BusyError),
        ("ConditionalRequestConflict", BusyError),
        ("InternalFailure", UnavailableError),
        ("RequestTimeTooSkewed", CredentialsError),
        ("EntityTooLarge", TooLargeError),
        ("AuthorizationHeaderMalformed", InvalidError),
    ],
)
def test_a_code_decides_whatever_the_status_is(code: str, kind: type[MillraceError]) -> None:
    assert kind is kind_of(code, None)
    assert kind is kind_of(code, 400)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidError),
        (401, CredentialsError),
        (403, DeniedError),
        (404, NotFoundError),
        (409, ConflictError),
        (413, TooLargeError),
        (429, BusyError),
        (500, UnavailableError),
        (501, InvalidError),
        (503, UnavailableError),
        (None, UnavailableError),
    ],
)
def test_the_status_decides_where_the_code_is_unknown(status: int | None, kind: type[MillraceError]) -> None:
    assert kind is kind_of(None, status)
    assert kind is kind_of("SomethingNew", status)


def test_code_means_something_else_as_the_answer_to_assume_role() -> None:
    assert "trust policy" in str(hint_for("AccessDenied", "AssumeRole"))
    assert HINTS["AccessDenied"] == hint_for("AccessDenied", "PutObject") == hint_for("AccessDenied")
    assert HINTS["ExpiredToken"] == hint_for("ExpiredToken", "AssumeRole")
    assert None is hint_for(None) is hint_for("Unheard")
