"""Errors of AWS as ours: what AWS says is told, and no key with it."""

import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from shared.aws.codes import CLOCK_HINT, HINTS
from shared.aws.errors import aws_error
from shared.errors import CredentialsError, DeniedError

TOKEN = "IQoJb3JpZ2luX2VjEA"
KEY_ID = "ASIAIOSFODNN7EXAMPLE"


def refused(code: str, message: str) -> str:
    error = aws_error(ClientError({"Error": {"Code": code, "Message": message}}, "PutRecords"))
    return error.message


def test_the_sentence_of_aws_follows_the_hint() -> None:
    said = "User: arn:aws:iam::123456789012:user/w is not authorized to perform: kinesis:PutRecords"

    told = refused("AccessDeniedException", said)

    assert (
        f"AWS refused PutRecords with AccessDeniedException: {HINTS['AccessDeniedException']} AWS says: {said}" == told
    )


@pytest.mark.parametrize(
    "said",
    [
        "Signature expired: 20261130T140000Z is now earlier than 20261130T145500Z (20261130T150000Z - 5 min.)",
        "Signature not yet current: 20261130T160000Z is still later than 20261130T150500Z",
    ],
)
def test_a_clock_that_is_off_is_not_taken_for_a_wrong_secret(said: str) -> None:
    assert f"AWS refused PutRecords with InvalidSignatureException: {CLOCK_HINT} AWS says: {said}" == refused(
        "InvalidSignatureException", said
    )


def test_a_code_without_a_hint_is_told_in_the_words_of_aws() -> None:
    assert "AWS refused PutRecords with KMSThrottlingException: Slow down" == refused(
        "KMSThrottlingException", "Slow down"
    )


@pytest.mark.parametrize(
    "said",
    [
        f"The signature does not match. The Canonical String should have been POST x-amz-security-token:{TOKEN}",
        f"The signature does not match.\nPOST\nx-amz-security-token:{TOKEN}",
        f"'Bearer' is no key=value pair in Authorization header: 'Credential={KEY_ID}/x, Signature={TOKEN}'",
        f"The key {KEY_ID} is unknown",
        f"Credential={KEY_ID}/20261130, Signature={TOKEN}",
    ],
)
def test_no_key_and_no_token_is_in_a_message(said: str) -> None:
    told = refused("InvalidSignatureException", said)

    assert told.startswith(
        f"AWS refused PutRecords with InvalidSignatureException: {HINTS['InvalidSignatureException']}"
    )
    assert not {TOKEN, KEY_ID} & set(told.replace(":", " ").replace("=", " ").split())
    assert TOKEN not in told
    assert KEY_ID not in told


def test_kinds_follow_the_codes() -> None:
    kinds = [
        type(aws_error(ClientError({"Error": {"Code": code}}, "PutObject")))
        for code in ("RequestTimeTooSkewed", "NotAuthorized")
    ]

    assert [CredentialsError, DeniedError] == kinds
