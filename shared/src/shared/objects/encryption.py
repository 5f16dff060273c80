"""
Encryption on the server that a bucket of S3 is asked for with each object: none, AES256 (SSE-S3), or a key of AWS KMS.

The keys that write need kms:GenerateDataKey for such a key, and kms:Decrypt to read back and to write in parts (S3 user
guide, SSE-KMS). Azure encrypts everything by itself.
"""

import re
from typing import Any, Final, Literal

from shared.errors import InvalidError

Sse = Literal["off", "AES256", "aws:kms"]
KMS_KEY_ID: Final = re.compile(r"(?:arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:)?[A-Za-z0-9/_-]{1,512}", re.ASCII)
"""An id, an alias or the ARN of one (KMS developer guide, key identifiers)."""


def check_sse(sse: Sse, kms_key_id: str, *, field: str = "sse_kms_key_id") -> None:
    """
    Check that a key of KMS is named where there is one, and nowhere else.

    Args:
        field: The name of the field of the key.

    Raises:
        InvalidError: It is missing, too much, or no key.
    """
    if sse != "aws:kms":
        if kms_key_id:
            raise InvalidError(f"expected no key beside sse {sse}; a key of KMS is for sse aws:kms", field=field)
        return
    if not KMS_KEY_ID.fullmatch(kms_key_id):
        found = "another text" if kms_key_id else "nothing"
        message = f"expected a key of AWS KMS for sse aws:kms: its ARN, its id or alias/<name>; found {found}"
        raise InvalidError(message, field=field)


def sse_options(sse: Sse, kms_key_id: str) -> dict[str, Any]:
    """The encryption as options of obstore."""
    if sse == "off":
        return {}
    return {"server_side_encryption": sse} | ({"sse_kms_key_id": kms_key_id} if kms_key_id else {})


def sse_arguments(sse: Sse, kms_key_id: str) -> dict[str, Any]:
    """The encryption as arguments of the SDK's `put_object`."""
    if sse == "off":
        return {}
    return {"ServerSideEncryption": sse} | ({"SSEKMSKeyId": kms_key_id} if kms_key_id else {})
