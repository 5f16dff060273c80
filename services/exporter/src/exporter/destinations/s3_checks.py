"""
Steps of Test Connection that S3 alone has: the role, its trust policy, the bucket's region, Object Lock, the list.

Configuration: s3:GetBucketLocation, s3:GetBucketObjectLockConfiguration and s3:ListBucket on the bucket. Writing files
needs none of them, so where one is missing the step says so and fails nothing.
Implementation: the SDK, since obstore has operations on objects alone.
Considerations: stores other than AWS's answer to some of these questions differently, or not at all; only what such a
store says clearly counts against it.
"""

from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from shared.aws.clients import AwsClients
from shared.aws.codes import DENIED_KEYS, hint_for
from shared.aws.errors import AWS_ERRORS, aws_code, aws_details, aws_error
from shared.aws.roles import AwsCredentials, AwsRole
from shared.contracts.connection_report import Check, Finding
from shared.errors import DeniedError, InvalidError, MillraceError, NotFoundError

OLD_NAMES: Final = {"": "us-east-1", "EU": "eu-west-1"}
"""Regions by what GetBucketLocation answers for the oldest buckets (S3 API reference)."""
NO_LOCK: Final = "ObjectLockConfigurationNotFoundError"
FRESH_HINT: Final = "AWS may need a minute to know a new role everywhere."
UNLOCK_HINT: Final = "Take a bucket without default retention: its objects could not be replaced or removed."
TRUST_HINT: Final = (
    "Demand sts:ExternalId in the trust policy of the role, as GET …/external-id shows it: without it, whoever has us "
    "assume the role writes into the bucket."
)


class S3Inspection(Struct, frozen=True, kw_only=True):
    """
    A bucket and who asks about it. `folder` has no slash at its ends. `at_aws` tells that AWS answers at the endpoint.
    """

    clients: AwsClients
    credentials: AwsCredentials | AwsRole
    bucket: str
    region: str
    folder: str
    endpoint_url: str | None
    at_aws: bool

    def checks(self) -> tuple[Check, ...]:
        """The steps, which need `open`."""
        needs = ("open", "role")
        role = self.credentials if isinstance(self.credentials, AwsRole) else None
        return (
            *(self._role_checks(role) if role is not None else ()),
            Check(name="region", run=self._check_region, explain=explain_aws, needs=needs),
            Check(name="object_lock", run=self._check_object_lock, explain=explain_aws, needs=(*needs, "region")),
            Check(
                name="list",
                run=self._check_list,
                explain=explain_aws,
                needs=(*needs, "region"),
                worst_status="warning",
            ),
        )

    def _role_checks(self, role: AwsRole) -> tuple[Check, ...]:
        async def assume() -> Finding:
            await self._assume(role)
            return Finding(message=f"assumed {role.role_arn}")

        async def demand() -> Finding:
            try:
                await self._assume(replace(role, external_id=""))
            except DeniedError:
                return Finding(message="the role is not given without the external id")
            return Finding(
                status="warning",
                code="confused_deputy",
                message="the role is given without the external id too",
                hint=TRUST_HINT,
            )

        return (
            Check(name="role", run=assume, explain=_explain_role, needs=("open",)),
            Check(name="external_id", run=demand, explain=explain_aws, needs=("role",), worst_status="warning"),
        )

    async def _assume(self, role: AwsRole) -> None:
        try:
            await self.clients.assume(role, region=self.region)
        except AWS_ERRORS as error:
            raise aws_error(error) from error

    async def _check_region(self) -> Finding:
        try:
            answer = await self._call("get_bucket_location")
        except MillraceError as error:
            found = aws_details(error).region
            if found and found != self.region:
                return self._wrong_region(found)
            if isinstance(error, DeniedError):
                return await self._region_of_head(error)
            return self._unknown(error)
        location = str(answer.get("LocationConstraint") or "")
        if not self.at_aws and not location:
            return Finding(message="the store names no region")
        return self._compared(OLD_NAMES.get(location, location))

    async def _region_of_head(self, denial: DeniedError) -> Finding:
        """The region that every answer to HeadBucket names, also a denial."""
        try:
            answer = await self._call("head_bucket")
        except DeniedError as error:
            found = aws_details(error).region
        else:
            found = answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
        return self._compared(found) if found else self._unknown(denial)

    def _compared(self, found: str) -> Finding:
        if found == self.region:
            return Finding(message=f"the bucket is in {found}")
        if self.at_aws:
            return self._wrong_region(found)
        # It took a signature for our region.
        return Finding(status="warning", message=f"the store says that the bucket is in {found}, not in {self.region}")

    def _wrong_region(self, found: str) -> Finding:
        return Finding(
            status="failed",
            code="wrong_region",
            message=f"the bucket is in {found}, and not in {self.region}",
            hint=f"Enter {found} as the region.",
        )

    async def _check_object_lock(self) -> Finding:
        try:
            answer = await self._call("get_object_lock_configuration")
        except MillraceError as error:
            if aws_code(error) == NO_LOCK:
                return Finding(message="the bucket locks no objects")
            return self._unknown(error)
        rule = answer.get("ObjectLockConfiguration", {}).get("Rule", {}).get("DefaultRetention")
        if not rule:
            return Finding(message="the bucket locks no objects by default")
        time = f"{rule['Days']} days" if "Days" in rule else f"{rule.get('Years')} years"
        return Finding(
            status="failed",
            code="object_lock",
            message=f"the bucket locks every new object for {time} ({rule.get('Mode')})",
            hint=UNLOCK_HINT,
        )

    async def _check_list(self) -> Finding:
        prefix = f"{self.folder}/" if self.folder else ""
        await self._call("list_objects_v2", Prefix=prefix, MaxKeys=1)
        return Finding(message=f"listed {prefix or 'the bucket'}")

    def _unknown(self, error: MillraceError) -> Finding:
        """The finding of a question whose answer is not needed, where it was refused. Raises any other error."""
        code = aws_code(error)
        if isinstance(error, DeniedError) and code in DENIED_KEYS:
            return Finding(status="unknown", code=code, message="the keys may not ask, which writing does not need")
        answered = aws_details(error).http_status is not None and code != "NoSuchBucket"
        if not self.at_aws and answered and isinstance(error, InvalidError | DeniedError | NotFoundError):
            return Finding(status="unknown", code=code, message="the store does not say")
        raise error

    async def _call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        try:
            return await self.clients.call(
                "s3",
                operation,
                {"Bucket": self.bucket, **arguments},
                region=self.region,
                credentials=self.credentials,
                endpoint_url=self.endpoint_url,
            )
        except AWS_ERRORS as error:
            raise aws_error(error) from error


def explain_aws(error: MillraceError) -> Finding:
    """The finding of a step that AWS refused, with its own code."""
    details = aws_details(error)
    return Finding(
        status="failed",
        message=error.message,
        code=details.code or error.code,
        http_status=details.http_status,
        hint=hint_for(details.code, details.operation, details.words),
    )


def _explain_role(error: MillraceError) -> Finding:
    found = explain_aws(error)
    if not isinstance(error, DeniedError):
        return found
    return replace(found, hint=f"{found.hint or ''} {FRESH_HINT}".strip())
