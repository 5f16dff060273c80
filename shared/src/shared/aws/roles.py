"""
Credentials of an AWS account: static keys, or a role that is assumed with an external id. Knows no SDK.

`shared.aws.clients` assumes the roles. The base keys, or this process's identity, need `sts:AssumeRole`.
"""

import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final, TypedDict

from msgspec import Struct

from shared.config.secret import Secret
from shared.errors import InvalidError

ROLE_ARN: Final = re.compile(r"arn:aws(?:-[a-z]+)*:iam::\d{12}:role/(?:[!-~]{1,511}/)?[\w+=,.@-]{1,64}", re.ASCII)
"""IAM user guide, IAM identifiers."""
EXTERNAL_ID: Final = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)
"""STS API reference, AssumeRole."""


class AwsCredentials(Struct, frozen=True, kw_only=True):
    """Static keys."""

    access_key_id: str
    secret_access_key: Secret


class AwsRole(Struct, frozen=True, kw_only=True):
    """A role that is assumed with an external id. Without `base` it is assumed by the identity of this process."""

    role_arn: str
    external_id: str
    base: AwsCredentials | None = None


class TemporaryKeys(TypedDict):
    """Keys of a session of a role, under the names that obstore wants."""

    access_key_id: str
    secret_access_key: str
    token: str
    expires_at: datetime


CredentialProvider = Callable[[], Awaitable[TemporaryKeys]]


def check_role(role_arn: str, external_id: str, app_key: str) -> None:
    """
    Refuse a role that a tenant may not name.

    One identity of ours assumes the roles of every tenant. A tenant that knows another's role_arn could borrow that
    role ("confused deputy", AWS IAM user guide). So the external id begins with the tenant's name, and the role's
    owner demands it in the trust policy.

    Raises:
        InvalidError: The ARN is malformed, or the external id is not the tenant's; names the field.
    """
    if not ROLE_ARN.fullmatch(role_arn):
        raise InvalidError("expected the ARN of a role, arn:aws:iam::<account>:role/<name>", field="role_arn")
    own = external_id == app_key or external_id.startswith(f"{app_key}:")
    if not own or not EXTERNAL_ID.fullmatch(external_id):
        raise InvalidError(
            f"expected {app_key!r}, or {app_key + ':'!r} and letters, digits or any of +=,.@:/-, as the role's trust "
            "policy demands it",
            field="external_id",
        )
