"""
Errors of AWS and its SDK, translated into those of `shared.errors`.

The kind of each code, and what an operator can do about it, is data in `shared.aws.codes`. No message holds a key.
"""

import re
from typing import Final

import aiohttp

# aiobotocore and botocore bring no types: what comes from them is Any, here and nowhere else.
from botocore import exceptions as botocore_exceptions  # type: ignore[import-untyped]
from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]
from msgspec import Struct

from shared.aws.codes import hint_for, kind_of
from shared.config.secret import MASK
from shared.errors import CredentialsError, InvalidError, MillraceError, UnavailableError
from shared.outgoing.addresses import PrivateAddressError, is_refused, unreachable

AWS_ERRORS: Final[tuple[type[Exception], ...]] = (
    botocore_exceptions.ClientError,
    botocore_exceptions.BotoCoreError,
    ResponseParserError,
    aiohttp.ClientError,
    ConnectionError,
    PrivateAddressError,
    TimeoutError,
)
"""Errors that a call to AWS may raise: `except AWS_ERRORS as error: raise aws_error(error) from error`."""


REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

_NO_KEYS: Final = (
    botocore_exceptions.NoCredentialsError,
    botocore_exceptions.PartialCredentialsError,
    botocore_exceptions.CredentialRetrievalError,
)
_NO_ANSWER: Final = (
    botocore_exceptions.ConnectionError,
    botocore_exceptions.HTTPClientError,
    botocore_exceptions.IncompleteReadError,
    ResponseParserError,
    aiohttp.ClientError,
    ConnectionError,
    TimeoutError,
)


WORDS_CHARS: Final = 300
_REPEATS: Final = re.compile(
    r"\n|The Canonical String|The String-to-Sign|Authorization header|Authorization=|Credential="
)
_KEY_IDS: Final = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}")


class AwsDetails(Struct, frozen=True, kw_only=True):
    """
    AWS's own words for a failure: `words` is its sentence, without keys and what it signed. `operation` is the call,
    `region` the one where AWS says that the bucket is.
    """

    code: str | None = None
    words: str | None = None
    http_status: int | None = None
    request_id: str | None = None
    region: str | None = None
    operation: str | None = None


def aws_details(error: BaseException) -> AwsDetails:
    """The details of an error of the SDK, or of a `MillraceError` that was raised from one."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return aws_details(error.__cause__) if error.__cause__ is not None else AwsDetails()
    about, answer = response.get("Error", {}), response.get("ResponseMetadata", {})
    region = about.get("Region") or answer.get("HTTPHeaders", {}).get("x-amz-bucket-region")
    return AwsDetails(
        code=about.get("Code"),
        words=_words(about.get("Message")),
        http_status=answer.get("HTTPStatusCode"),
        request_id=answer.get("RequestId"),
        region=region,
        operation=getattr(error, "operation_name", None),
    )


def _words(message: object) -> str | None:
    """The first sentences of a message. What follows repeats the request, with its token, or the header of its keys."""
    told = _REPEATS.split(str(message or ""), maxsplit=1)[0].strip()
    return _KEY_IDS.sub(MASK, told)[:WORDS_CHARS] or None


def aws_code(error: BaseException) -> str | None:
    """The code of `aws_details`, such as `NoSuchBucket`."""
    return aws_details(error).code


def leads_elsewhere(details: AwsDetails) -> bool:
    """Return whether an answer is a redirect that is none of AWS's, which names its code or the bucket's region."""
    return (
        details.http_status in REDIRECTS and details.code in {None, "", str(details.http_status)} and not details.region
    )


def aws_error(error: BaseException) -> MillraceError:
    """An error of the SDK as one of ours. The message names AWS's code; it holds no key."""
    details = aws_details(error)
    name = type(error).__name__
    if isinstance(error, botocore_exceptions.ClientError):
        if leads_elsewhere(details):
            return InvalidError(
                f"the host leads elsewhere: it answers {error.operation_name} with HTTP {details.http_status}, and no "
                "redirect is followed",
                field="endpoint_url",
            )
        hint = hint_for(details.code, details.operation, details.words)
        said = " ".join(filter(None, (hint, f"AWS says: {details.words}" if hint and details.words else details.words)))
        message = f"AWS refused {error.operation_name} with {details.code}: {said}"
        return kind_of(details.code, details.http_status)(message)
    if isinstance(error, _NO_KEYS):
        return CredentialsError(f"there are no AWS credentials to use ({name})")
    if is_refused(error):
        return unreachable("endpoint_url")
    if isinstance(error, _NO_ANSWER):
        return UnavailableError(f"AWS cannot be reached ({name})")
    return InvalidError(f"AWS was not asked: {str(error)[:300]}")
