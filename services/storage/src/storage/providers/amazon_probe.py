"""
Steps of Test Connection for Amazon S3.

Configuration: s3:PutObject and s3:GetObject on `<bucket>/<prefix>/*`; s3:DeleteObject there lets the test clean up.
Implementation: the SDK, because only it passes the provider's error codes on. A failed HEAD on the bucket proves
nothing: it needs s3:ListBucket, which cannot be granted for a prefix, and its failures have no body. Its answer holds
the bucket's region for every caller (S3 API, HeadBucket, x-amz-bucket-region).
Considerations: with a wrong region the errors of later steps are of little help, so the region is compared first. A
client keeps a role's keys for an hour, so the test assumes the role anew.
"""

from typing import Any, Final
from urllib.parse import urlsplit

from shared.aws.clients import AwsClients
from shared.aws.codes import hint_for
from shared.aws.errors import AWS_ERRORS, aws_details, aws_error, leads_elsewhere
from shared.aws.roles import AwsRole
from shared.contracts.connection_report import ConnectionReport, Finding
from shared.errors import MillraceError
from shared.objects.encryption import sse_arguments
from shared.outgoing.addresses import is_refused
from shared.outgoing.door import Outgoing
from shared.runtime.logs import redactor
from storage.placement.failover import ObjectHeaders
from storage.providers.amazon import AmazonStorageConfig, checked
from storage.providers.probe import probe
from storage.providers.probe_port import ProviderWording, Sample, field_finding, server_error_hint

WORDING: Final = ProviderWording(
    container="bucket",
    not_public=(
        "Let everybody read the prefix (bucket policy, Block Public Access), or put a CDN before the bucket and enter "
        "its address as cdn_base_url."
    ),
    no_cors=(
        "For fonts, give the bucket a CORS rule with AllowedOrigins * and AllowedMethods GET, and let a CDN before it "
        "pass Origin on."
    ),
    codes={
        "NoSuchKey": "cdn_base_url has to lead to the top of this bucket.",
        "PermanentRedirect": "The bucket is in another region than the one entered.",
    },
)

CONNECTING: Final = {
    "EndpointConnectionError": "The host does not exist or takes no connection: check region and endpoint_url.",
    "ConnectTimeoutError": "The host takes no connection: check region and endpoint_url, and the firewall.",
    "ReadTimeoutError": "The host takes the connection and says nothing: is this an S3 endpoint?",
    "SSLError": "The host's certificate is not valid: check endpoint_url.",
    "ConnectionClosedError": "The host closes the connection: is this an S3 endpoint?",
    "ClientPayloadError": "The host closes the connection in mid-answer: is this an S3 endpoint?",
    "HTTPClientError": "The answer breaks off or makes no sense: is this an S3 endpoint?",
    "ResponseStreamingError": "The host closes the connection in mid-answer: is this an S3 endpoint?",
    "ResponseParserError": "The answer makes no sense: is this an S3 endpoint?",
    "NoCredentialsError": "This service has no AWS identity of its own: enter keys that may assume the role.",
}
"""Hints for the SDK's own errors, which have no code of the provider."""


async def test_connection(
    config: AmazonStorageConfig,
    *,
    app_key: str,
    aws: AwsClients,
    outgoing: Outgoing,
    allow_private: bool,
    deadline_s: float,
) -> ConnectionReport:
    """Test a connector, saved or not, within the deadline."""
    redactor.add(config.secret_key.reveal())
    redactor.add(config.session_token.reveal())
    provider = _AmazonProbe(config, app_key=app_key, aws=aws, allow_private=allow_private)
    return await probe(provider, http=outgoing.guarded, deadline_s=deadline_s)


class _AmazonProbe:
    """Satisfies `ProviderProbe`."""

    wording = WORDING
    errors: tuple[type[Exception], ...] = (*AWS_ERRORS, MillraceError)

    def __init__(self, config: AmazonStorageConfig, *, app_key: str, aws: AwsClients, allow_private: bool) -> None:
        self._config = config
        self._app_key = app_key
        self._aws = aws
        self._allow_private = allow_private
        self._region: str | None = None

    def checked(self) -> AmazonStorageConfig:
        """See `ProviderProbe`."""
        self._config = checked(self._config, allow_private=self._allow_private, app_key=self._app_key)
        return self._config

    async def check_endpoint(self, sample: Sample) -> Finding:
        """See `ProviderProbe`. Fails when the role cannot be assumed."""
        config = self._config
        if isinstance(config.credentials, AwsRole):
            await self._aws.assume(config.credentials, region=config.region)
        host = urlsplit(config.endpoint_url).netloc or "AWS"
        try:
            answer = await self._call("head_bucket")
        except AWS_ERRORS as error:
            details = aws_details(error)
            if details.http_status is None or leads_elsewhere(details):
                raise
            self._region = details.region
            return Finding(message=f"{host} answers", http_status=details.http_status)
        about = answer["ResponseMetadata"]
        self._region = about["HTTPHeaders"].get("x-amz-bucket-region")
        return Finding(message=f"{host} answers", http_status=about["HTTPStatusCode"])

    async def region(self) -> Finding:
        """See `ProviderProbe`."""
        if self._region is None:
            return Finding(message="the endpoint does not tell the bucket's region")
        if self._region == self._config.region:
            return Finding(message=f"the bucket is in {self._region}")
        return Finding(
            status="failed",
            code="WrongRegion",
            message=f"the bucket is in {self._region}, {self._config.region} was entered",
            hint=f"Enter {self._region} as the region.",
        )

    async def put(self, sample: Sample) -> Finding:
        """See `ProviderProbe`. A store without conditional writes (501) gets a plain one, as from uploads."""
        stored: dict[str, Any] = {
            "Key": sample.key,
            "Body": sample.body,
            "ContentType": sample.headers.content_type,
            "CacheControl": sample.headers.cache_control,
            "ContentDisposition": sample.headers.content_disposition,
        } | sse_arguments(self._config.sse, self._config.sse_kms_key_id)
        try:
            await self._call("put_object", IfNoneMatch="*", **stored)
        except AWS_ERRORS as error:
            if aws_details(error).http_status != 501:
                raise
            await self._call("put_object", **stored)
        return Finding(message=f"stored {sample.key}", http_status=200)

    async def get(self, sample: Sample) -> tuple[bytes, ObjectHeaders]:
        """See `ProviderProbe`."""
        answer = await self._call("get_object", Key=sample.key)
        found = b""
        async with answer["Body"] as body:
            # One byte more than was stored is enough to see a difference.
            while len(found) <= len(sample.body) and (piece := await body.read(len(sample.body) + 1)):
                found += piece
        return found, ObjectHeaders(
            content_type=answer.get("ContentType", ""),
            content_disposition=answer.get("ContentDisposition", ""),
            cache_control=answer.get("CacheControl", ""),
        )

    async def delete(self, sample: Sample) -> int:
        """See `ProviderProbe`."""
        await self._call("delete_object", Key=sample.key)
        return 204

    def failure(self, error: Exception) -> Finding:
        """See `ProviderProbe`."""
        details = aws_details(error)
        if is_refused(error) or leads_elsewhere(details):
            return field_finding(aws_error(error))
        if isinstance(error, MillraceError) and details.code is None:
            return field_finding(error)
        code = details.code or type(error).__name__
        # A provider should not repeat the secret; if one does, it is masked.
        message = (error if isinstance(error, MillraceError) else aws_error(error)).message
        if secret := self._config.secret_key.reveal():
            message = message.replace(secret, "***")
        hint = self._denied(details.operation) if code == "AccessDenied" else None
        hint = (
            hint or hint_for(code, details.operation) or CONNECTING.get(code) or server_error_hint(details.http_status)
        )
        return Finding(status="failed", code=code, http_status=details.http_status, message=message, hint=hint)

    def _denied(self, operation: str | None) -> str | None:
        where = "/".join(part for part in (self._config.bucket_name, self._config.prefix, "*") if part)
        if operation == "PutObject":
            return (
                f"The key is valid but may not s3:PutObject on {where}: look at its policy, at the bucket's, and at "
                "the KMS key if there is one."
            )
        if operation == "GetObject":
            return f"The key may write and not read: grant s3:GetObject on {where}."
        return None

    async def _call(self, operation: str, **arguments: Any) -> Any:
        config = self._config
        async with self._aws.client(
            "s3", region=config.region, credentials=config.credentials, endpoint_url=config.endpoint_url or None
        ) as s3:
            return await getattr(s3, operation)(Bucket=config.bucket_name, **arguments)
