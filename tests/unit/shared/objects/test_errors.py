"""Translation of obstore's errors to a kind of error and a sentence."""

import pytest
from obstore import exceptions as obstore_exceptions

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
from shared.objects.errors import AZURE_CODES, AZURE_HINTS, network_code, store_code, store_error


def answered(status: str, code: str) -> str:
    """As obstore 0.12 words an answer; Azure puts line breaks around."""
    url = "http://127.0.0.1:9000/bucket/a%20b"
    body = f'<?xml version="1.0"?>\n<Error>\n  <Code>{code}</Code>\n  <Message>m</Message>\n</Error>' if code else ""
    return (
        f"Generic S3 error: Error performing PUT {url} in 2.2ms - Server returned non-2xx status code: {status}: {body}"
        '\n\nDebug source:\nGeneric { store: "S3" }'
    )


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        ("403 Forbidden", "SignatureDoesNotMatch", CredentialsError),
        ("403 Forbidden", "AccessDenied", DeniedError),
        ("404 Not Found", "NoSuchBucket", NotFoundError),
        ("503 Service Unavailable", "SlowDown", BusyError),
        ("500 Internal Server Error", "", UnavailableError),
        ("403 Forbidden", "", DeniedError),
        ("403 Forbidden", "AuthenticationFailed", CredentialsError),
        ("403 Forbidden", "AuthorizationFailure", DeniedError),
        ("404 Not Found", "ContainerNotFound", NotFoundError),
        ("409 Conflict", "BlobAlreadyExists", ConflictError),
        ("409 Conflict", "PublicAccessNotPermitted", DeniedError),
        ("409 Conflict", "BlobImmutableDueToPolicy", DeniedError),
        ("409 Conflict", "ContainerBeingDeleted", BusyError),
        ("403 Forbidden", "KeyBasedAuthenticationNotPermitted", DeniedError),
        ("400 Bad Request", "InvalidAuthenticationInfo", CredentialsError),
        ("401 Unauthorized", "NoAuthenticationInformation", CredentialsError),
        ("503 Service Unavailable", "ServerBusy", BusyError),
        ("413 Payload Too Large", "RequestBodyTooLarge", TooLargeError),
    ],
)
def test_the_code_decides_and_else_the_status(status: str, code: str, kind: type[MillraceError]) -> None:
    error = store_error(obstore_exceptions.GenericError(answered(status, code)), "store a b in the bucket x")

    assert kind is type(error)
    assert error.message.startswith(f"cannot store a b in the bucket x: {code or status[:3]}")
    assert "127.0.0.1" not in error.message


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FileNotFoundError("Object at location /x not found: No such file or directory (os error 2)"), NotFoundError),
        (FileNotFoundError("Bulk delete failed: The specified blob does not exist. (code: 404)"), NotFoundError),
        (PermissionError("Permission denied (os error 13)"), DeniedError),
        (obstore_exceptions.AlreadyExistsError("Object at location /x already exists"), ConflictError),
        (ValueError('Could not parse path: Error parsing Path "../x"'), InvalidError),
        (obstore_exceptions.GenericError("Received redirect without LOCATION, this normally"), InvalidError),
        (obstore_exceptions.GenericError("... in 2ms - HTTP error: error sending request"), UnavailableError),
        (obstore_exceptions.GenericError("Content-Length Header missing from response"), UnavailableError),
    ],
)
def test_an_error_without_code_and_status_is_classified_by_its_class_and_text(
    error: Exception, kind: type[MillraceError]
) -> None:
    assert kind is type(store_error(error, "read a"))


def test_an_unknown_host_name_is_reported() -> None:
    text = 'in 1.5ms - HTTP error: error sending request\n\nDebug source:\nConnectError(\n"dns error",\n'

    error = store_error(obstore_exceptions.GenericError(text), "read a")

    assert "the name of its host is not known" in error.message


def test_an_error_of_our_own_provider_of_keys_is_passed_on() -> None:
    text = "The operation lacked … External AWS credential provider: DeniedError: no\nsuch role\n\nDebug source:\nX"

    error = store_error(obstore_exceptions.UnauthenticatedError(text), "read a")

    assert (DeniedError, "no\nsuch role") == (type(error), error.message)


def test_the_code_is_found_behind_an_error_of_ours() -> None:
    ours = NotFoundError("cannot read a")
    ours.__cause__ = FileNotFoundError(answered("404 Not Found", "NoSuchBucket"))

    assert "NoSuchBucket" == store_code(ours)
    assert None is store_code(NotFoundError("no cause"))


@pytest.mark.parametrize(
    ("trace", "code"),
    [
        ('ConnectError(\n"dns error",\n', "HostNotFound"),
        ("kind: Connect,\nInvalidCertificate(\nExpired,\n)", "CertificateInvalid"),
        ("kind: Connect,\nCustom {\nkind: InvalidData,\nerror: InvalidMessage(\nInvalidContentType,\n)", "TlsFailed"),
        ("kind: Timeout,\nsource: TimedOut,", "Timeout"),
        ("kind: Request,\nSendRequest,\nhyper::Error(\nIncompleteMessage,", "ConnectionClosed"),
        ("kind: Interrupted,\nerror: IncompleteBody,", "ConnectionClosed"),
        ('kind: Connect,\nConnectError(\n"tcp connect error",', "ConnectionFailed"),
        ("kind: Unknown,", None),
    ],
)
def test_the_reason_for_no_answer_is_found_in_the_cause_of_an_error(trace: str, code: str | None) -> None:
    theirs = obstore_exceptions.GenericError(f"in 2ms - HTTP error: error sending request\n\nDebug source:\n{trace}")
    ours = UnavailableError("cannot read a")
    ours.__cause__ = theirs

    assert code == network_code(ours)


def test_an_answer_is_not_a_network_failure() -> None:
    assert None is network_code(obstore_exceptions.GenericError(answered("503 Service Unavailable", "SlowDown")))
    assert None is network_code(UnavailableError("no cause"))


@pytest.mark.parametrize(("store", "said"), [("S3", "another region"), ("MicrosoftAzure", "another address")])
def test_a_redirect_without_a_location_is_explained_by_its_store(store: str, said: str) -> None:
    error = obstore_exceptions.GenericError(f"Generic {store} error: Received redirect without LOCATION, this")

    assert "Redirect" == network_code(error)
    assert said in store_error(error, "read a").message


def test_a_code_too_long_to_be_one_is_not_repeated() -> None:
    error = obstore_exceptions.GenericError(answered("400 Bad Request", "x" * 65))

    assert None is store_code(error)
    assert "xxx" not in store_error(error, "read a").message


def test_every_hint_is_for_a_code_that_is_known() -> None:
    assert {"InternalError"} == AZURE_HINTS.keys() - AZURE_CODES.keys()
