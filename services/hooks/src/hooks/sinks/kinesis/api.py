"""The Kinesis API as one connector reaches it, and the meaning of its refusals for delivery."""

from typing import Any, Final

from msgspec import Struct

from shared.aws.clients import AwsClients
from shared.aws.errors import AWS_ERRORS, aws_code, aws_error
from shared.aws.roles import AwsCredentials, AwsRole
from shared.errors import DeniedError, InvalidError, MillraceError, TooLargeError

ABOUT_RECORDS: Final = frozenset({"InvalidArgumentException", "ValidationException"})
"""Refusals that a record can cause. Every other one concerns the call, and no record becomes a dead letter for it."""

NOT_ALLOWED: Final = frozenset({"AccessDeniedException", "AccessDenied"})
"""The answer to an action that the policy lacks. Other denials, such as those of KMS, concern PutRecord as well."""


class KinesisApi(Struct, frozen=True):
    """An address and the credentials for it. `at_aws` is true where the address is AWS's own."""

    clients: AwsClients
    region: str
    credentials: AwsCredentials | AwsRole
    endpoint_url: str | None
    at_aws: bool

    async def post(self, target: str, body: bytes) -> bytes:
        """
        One call with an encoded body, signed by us: the SDK would cost three times the remaining cost of a record.

        Raises:
            MillraceError: AWS refused, or was not reached; of the kind that delivery needs.
        """
        try:
            return await self.clients.post_json(
                "kinesis",
                target,
                body,
                region=self.region,
                credentials=self.credentials,
                endpoint_url=self.endpoint_url,
            )
        except MillraceError as error:
            if (translated := _translated(error, aws_code(error))) is error:
                raise
            raise translated from error

    async def call(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        """
        The answer of the SDK, for operations that are called rarely.

        Raises:
            MillraceError: AWS refused, or was not reached.
        """
        # A VPC endpoint of Kinesis does not speak STS; a stand-in for AWS speaks both.
        elsewhere = self.endpoint_url and not (service == "sts" and self.at_aws)
        try:
            return await self.clients.call(
                service,
                operation,
                arguments,
                region=self.region,
                credentials=self.credentials,
                endpoint_url=self.endpoint_url if elsewhere else None,
            )
        except AWS_ERRORS as error:
            raise _translated(aws_error(error), aws_code(error)) from error


def _translated(found: MillraceError, code: str | None) -> MillraceError:
    """The error that delivery has to see for a refusal."""
    if isinstance(found, InvalidError | TooLargeError) and code not in ABOUT_RECORDS:
        return DeniedError(found.message)
    return found
