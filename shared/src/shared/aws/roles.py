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
TEMPORARY: Final = "ASIA"
LASTING: Final = "AKIA"
"""Beginnings of access key ids (IAM user guide, IAM identifiers, unique ids)."""
NO_TOKEN: Final = Secret("")
SESSION_TOKEN: Final = re.compile(r"[!-~]{0,8192}")
"""AWS documents no limit (STS API reference, Credentials); tokens have some hundred characters."""
EXTERNAL_ID: Final = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)
"""STS API reference, AssumeRole."""


class AwsCredentials(Struct, frozen=True, kw_only=True):
    """Static keys. Temporary ones have a `session_token` as a third part."""

    access_key_id: str
    secret_access_key: Secret
    session_token: Secret = NO_TOKEN


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
    check_role_arn(role_arn)
    own = external_id == app_key or external_id.startswith(f"{app_key}:")
    if not own or not EXTERNAL_ID.fullmatch(external_id):
        raise InvalidError(
            f"expected {app_key!r}, or {app_key + ':'!r} and letters, digits or any of +=,.@:/-, as the role's trust "
            "policy demands it",
            field="external_id",
        )


def check_role_arn(role_arn: str, *, field: str = "role_arn") -> None:
    """Check the form of a role's ARN. Raises `InvalidError`, which names the field."""
    if not ROLE_ARN.fullmatch(role_arn):
        raise InvalidError("expected the ARN of a role, arn:aws:iam::<account>:role/<name>", field=field)


def checked_token(access_key_id: str, session_token: Secret, *, field: str = "session_token") -> Secret:
    """
    The session token that belongs to an access key id. A lasting key has none: a token that a form leaves out is the
    saved one, of the temporary keys which the lasting ones replace.

    Raises:
        InvalidError: The keys are temporary and have no token, or it cannot be one; names the field.
    """
    if access_key_id.startswith(LASTING) or not access_key_id:
        return NO_TOKEN
    if access_key_id.startswith(TEMPORARY) and not session_token:
        message = f"required, because keys that begin with {TEMPORARY} are temporary; a user's keys or a role last"
        raise InvalidError(message, field=field)
    if not SESSION_TOKEN.fullmatch(session_token.reveal()):
        raise InvalidError("expected a session token, without spaces", field=field)
    return session_token
