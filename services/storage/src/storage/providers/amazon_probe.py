"""
Test Connection for Amazon S3: the operations that the service uses, on the prefix that it uses, each once.

Configuration: s3:PutObject and s3:GetObject on `<bucket>/<prefix>/*`; s3:DeleteObject there lets the test clean up.
Implementation: the SDK, because only it tells the provider's own codes. HEAD on the bucket is no verdict: it needs
s3:ListBucket, which cannot be granted for a prefix, and its failures have no body. It does tell the bucket's region,
whoever asks (reference: storage.md, 6).
Considerations: the SDK follows a bucket into another region silently, and every request then costs two, so the region
is compared.
"""

import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from shared.aws import AWS_ERRORS, AwsClients, AwsCredentials, aws_details, aws_error
from shared.aws_codes import HINTS
from shared.connection_test import Check, ConnectionReport, Finding, run_checks
from shared.errors import InvalidError
from shared.logs import redactor
from shared.private_addresses import refuse_private_addresses
from storage.providers.amazon import AmazonStorageConfig, checked
from storage.uploads import CACHE_CONTROL

PROBE_TYPE: Final = "text/plain; charset=utf-8"

CONNECTING: Final = {
    "EndpointConnectionError": "The host does not exist or takes no connection: check region and endpoint_url.",
    "ConnectTimeoutError": "The host takes no connection: check region and endpoint_url, and the firewall.",
    "ReadTimeoutError": "The host takes the connection and says nothing: is this an S3 endpoint?",
    "SSLError": "The host's certificate is not valid: check endpoint_url.",
    "ConnectionClosedError": "The host closes the connection: is this an S3 endpoint?",
}
"""What to do about the SDK's own errors, which no provider gave a code."""

NOT_PUBLIC: Final = (
    "Let everybody read the prefix (bucket policy, Block Public Access), or put a CDN before the bucket and enter its "
    "address as cdn_base_url."
)


async def test_connection(
    config: AmazonStorageConfig, *, aws: AwsClients, http: aiohttp.ClientSession, allow_private: bool, deadline_s: float
) -> ConnectionReport:
    """Test a connector, saved or not, within the deadline."""
    redactor.add(config.secret_key.reveal())
    probe = AmazonProbe(config, aws=aws, http=http, allow_private=allow_private)
    return await run_checks(probe.checks(), deadline_s=deadline_s)


class AmazonProbe:
    """One test of one connector, saved or not. `config` is as the form has it; the first step checks it."""

    def __init__(
        self, config: AmazonStorageConfig, *, aws: AwsClients, http: aiohttp.ClientSession, allow_private: bool
    ) -> None:
        self._config = config
        self._aws = aws
        self._http = http
        self._allow_private = allow_private
        self._body = f"millrace connection test {uuid.uuid4()}\n".encode()
        self._key = ""
        self._region: str | None = None

    def checks(self) -> tuple[Check, ...]:
        """The steps in their order."""
        first = ("fields", "reach", "region")
        return (
            Check(name="fields", run=self._fields),
            Check(name="reach", run=self._told(self._reach), needs=("fields",)),
            Check(name="region", run=self._same_region, needs=("fields", "reach")),
            Check(name="put", run=self._told(self._put), needs=first),
            Check(name="get", run=self._told(self._get), needs=("put",)),
            Check(name="public_url", run=self._public_url, needs=("put",)),
            Check(name="delete", run=self._delete, needs=("put",), at_worst="warning"),
        )

    async def _fields(self) -> Finding:
        try:
            self._config = checked(self._config, allow_private=self._allow_private)
        except InvalidError as error:
            return Finding(status="failed", code=error.code, message=f"{error.field}: {error.message}")
        key = f".probe/{uuid.uuid4()}"
        self._key = f"{self._config.prefix}/{key}" if self._config.prefix else key
        return Finding(message="all fields are well formed")

    async def _reach(self) -> Finding:
        for field in ("endpoint_url", "cdn_base_url"):
            if (url := getattr(self._config, field)) and not self._allow_private:
                await refuse_private_addresses(url, field)
        host = urlsplit(self._config.endpoint_url).netloc or "AWS"
        try:
            answer = await self._call("head_bucket")
        except AWS_ERRORS as error:
            details = aws_details(error)
            if details.http_status is None:
                raise
            self._region = details.region
            return Finding(message=f"{host} answers", http_status=details.http_status)
        about = answer["ResponseMetadata"]
        self._region = about["HTTPHeaders"].get("x-amz-bucket-region")
        return Finding(message=f"{host} answers", http_status=about["HTTPStatusCode"])

    async def _same_region(self) -> Finding:
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

    async def _put(self) -> Finding:
        await self._call(
            "put_object", Key=self._key, Body=self._body, ContentType=PROBE_TYPE, CacheControl=CACHE_CONTROL
        )
        return Finding(message=f"stored {self._key}", http_status=200)

    async def _get(self) -> Finding:
        answer = await self._call("get_object", Key=self._key)
        async with answer["Body"] as body:
            same = await body.read() == self._body
        if not same:
            return Finding(status="failed", code="Different", message="other bytes came back than were stored")
        return Finding(message="the same bytes came back", http_status=200)

    async def _public_url(self) -> Finding:
        url = self._config.url(self._key)
        try:
            async with self._http.get(url, allow_redirects=False) as answer:
                body = await answer.content.read(len(self._body) + 4096)
        except aiohttp.ClientError as error:
            return Finding(
                status="failed", code=type(error).__name__, message=f"{url} cannot be reached", hint=NOT_PUBLIC
            )
        if answer.status != 200:
            code = re.search(rb"<Code>(\w{1,64})</Code>", body)
            return Finding(
                status="failed",
                code=code[1].decode() if code else None,
                http_status=answer.status,
                message=f"{url} cannot be read without a key",
                hint=NOT_PUBLIC,
            )
        if body != self._body:
            return Finding(
                status="failed",
                code="Different",
                http_status=200,
                message=f"{url} shows something else than was stored",
                hint="cdn_base_url has to lead to the top of this bucket.",
            )
        if answer.headers.get("Cache-Control") != CACHE_CONTROL:
            return Finding(
                status="warning",
                code="CacheControl",
                http_status=200,
                message=f"Cache-Control arrives as {answer.headers.get('Cache-Control', 'nothing')!r}",
                hint="Let the CDN pass the bucket's Cache-Control on.",
            )
        return Finding(message=f"everybody can read {url}", http_status=200)

    async def _delete(self) -> Finding:
        try:
            await self._call("delete_object", Key=self._key)
        except AWS_ERRORS as error:
            found = self._failure(error)
            return msgspec.structs.replace(
                found,
                message=f"{self._key} stays in the bucket: {found.message}",
                hint="Media are never deleted by the service, so this hinders nothing.",
            )
        return Finding(message=f"removed {self._key}", http_status=204)

    async def _call(self, operation: str, **arguments: Any) -> Any:
        config = self._config
        credentials = AwsCredentials(access_key_id=config.access_key, secret_access_key=config.secret_key)
        async with self._aws.client(
            "s3", region=config.region, credentials=credentials, endpoint_url=config.endpoint_url or None
        ) as s3:
            return await getattr(s3, operation)(Bucket=config.bucket_name, **arguments)

    def _told(self, step: Callable[[], Awaitable[Finding]]) -> Callable[[], Awaitable[Finding]]:
        async def run() -> Finding:
            try:
                return await step()
            except AWS_ERRORS as error:
                return self._failure(error)

        return run

    def _failure(self, error: Exception) -> Finding:
        details = aws_details(error)
        code = details.code or type(error).__name__
        # No provider should repeat the secret; one that does is not quoted.
        message = aws_error(error).message.replace(self._config.secret_key.reveal(), "***")
        hint = HINTS.get(code) or CONNECTING.get(code)
        return Finding(status="failed", code=code, http_status=details.http_status, message=message, hint=hint)
