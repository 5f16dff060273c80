"""
The trust policy of a customer's role: which account of AWS may assume it, and with which external id.

The account is that of this service's own identity, as AWS names it (`GetCallerIdentity`).
"""

import asyncio
from typing import Any, Final

import structlog
from msgspec import Struct

from shared.aws.clients import AwsClients
from shared.aws.endpoints import partition_of
from shared.errors import MillraceError

log = structlog.get_logger()

IDENTITY_S: Final = 5.0
"""The longest wait for AWS to name the account; a person waits too."""
POLICY_VERSION: Final = "2012-10-17"
"""The version of the language of policies (IAM user guide, IAM JSON policy elements: Version)."""


class RoleTrust(Struct, frozen=True, kw_only=True):
    """
    Values with which a customer makes a role for exports.

    `external_id` is the app's, and never changes. `aws_account` is the account that assumes roles. It and
    `trust_policy`, the JSON of the role's trust policy, are null where the service has no identity of AWS, and then it
    can assume no role.
    """

    external_id: str
    aws_account: str | None
    trust_policy: dict[str, Any] | None


class OwnAccounts:
    """The account of this service in each partition of AWS, which is asked for until it is known."""

    def __init__(self, clients: AwsClients) -> None:
        self._clients = clients
        self._known: dict[str, str] = {}

    async def trust(self, external_id: str, region: str) -> RoleTrust:
        """The trust that a role of the region's partition needs."""
        partition = partition_of(region)
        account = await self._account(partition, region)
        policy = trust_policy(partition, account, external_id) if account is not None else None
        return RoleTrust(external_id=external_id, aws_account=account, trust_policy=policy)

    async def _account(self, partition: str, region: str) -> str | None:
        if (known := self._known.get(partition)) is not None:
            return known
        try:
            async with asyncio.timeout(IDENTITY_S):
                account = await self._clients.own_account(region=region)
        except (MillraceError, TimeoutError) as error:
            log.warning("aws_account_not_found", region=region, message=str(error) or "no answer")
            return None
        self._known[partition] = account
        return account


def trust_policy(partition: str, account: str, external_id: str) -> dict[str, Any]:
    """
    The trust policy of a role that this account may assume, with the external id alone (IAM user guide, Access to AWS
    accounts owned by third parties).
    """
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:{partition}:iam::{account}:root"},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"sts:ExternalId": external_id}},
    }
    return {"Version": POLICY_VERSION, "Statement": [statement]}
