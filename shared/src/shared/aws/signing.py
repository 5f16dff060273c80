"""
AWS's JSON APIs without the SDK's machinery: a body that the caller has encoded, signed with Signature Version 4.

For calls that carry very many records: the SDK spends more on checking, serialising and parsing each of them than
the rest of their way costs together. Signing is the SDK's own.
"""

from collections.abc import Mapping
from typing import Any

# botocore brings no types.
from botocore.auth import SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from msgspec import DecodeError, json

CONTENT_TYPE = "application/x-amz-json-1.1"


def signed_headers(keys: Any, *, service: str, region: str, url: str, target: str, body: bytes) -> Mapping[str, str]:
    """
    The headers of a POST of `body`.

    Args:
        keys: The SDK's frozen credentials.
        target: The operation, such as `Kinesis_20131202.PutRecords`.
    """
    about = {"Content-Type": CONTENT_TYPE, "X-Amz-Target": target}
    request = AWSRequest(method="POST", url=url, data=body, headers=about)
    SigV4Auth(keys, service, region).add_auth(request)
    return dict(request.headers.items())


def json_error(operation: str, status: int, headers: Mapping[str, str], body: bytes) -> ClientError:
    """The error that the SDK would raise for an answer that is no success."""
    try:
        found = json.decode(body) if body else {}
        answer = found if isinstance(found, dict) else {}
    except (DecodeError, UnicodeDecodeError):
        answer = {}
    code = str(answer.get("__type") or headers.get("x-amzn-errortype") or status)
    # `com.amazonaws.kinesis#ResourceNotFoundException:http://…`: the name in the middle is the code.
    code = code.rpartition("#")[2].partition(":")[0]
    message = str(answer.get("message") or answer.get("Message") or "")
    about = {"HTTPStatusCode": status, "RequestId": headers.get("x-amzn-requestid", ""), "HTTPHeaders": dict(headers)}
    return ClientError({"Error": {"Code": code, "Message": message}, "ResponseMetadata": about}, operation)
