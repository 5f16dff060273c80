"""
Test Connection of a provider: the steps in their order, and those that are the same for all providers. A provider's own
steps are in `amazon_probe` and `azure_probe`.

Implementation: the operations that uploads use, under the same prefix, each once; then reads without credentials.
Public URLs are read without following redirects, up to a limit, and a refusal is quoted.
Considerations: the customer chooses the host of a public URL, so `http` is the guarded client of `shared.outgoing`.
"""

import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import aiohttp
import msgspec
from msgspec import Struct

from shared.contracts.connection_report import Check, ConnectionReport, Finding, run_checks
from shared.errors import InvalidError
from shared.outgoing.addresses import PrivateAddressError, is_refused
from shared.outgoing.http_client import HttpClient
from storage.placement.failover import ObjectHeaders
from storage.providers.probe_port import ProviderProbe, Sample

ORIGIN: Final = "https://www.example.com"
"""The origin of a foreign page, to check that a browser lets it use a stored object."""

MAX_READ_BYTES: Final = 8192
"""The part of a response that is read: longer than the sample, and than any provider's error."""

QUOTED_CHARS: Final = 100

PROBE_NOT_DELETED: Final = "The test's object, below .probe/, may still be there."


async def probe(provider: ProviderProbe, *, http: HttpClient, deadline_s: float) -> ConnectionReport:
    """Test a connector within the deadline."""
    return await run_checks(_ProbeRun(provider, http).checks(), deadline_s=deadline_s)


class _PublicResponse(Struct, frozen=True):
    """The response to a read without credentials."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _ProbeRun:
    """One test of one connector."""

    def __init__(self, provider: ProviderProbe, http: HttpClient) -> None:
        self._provider = provider
        self._http = http
        self._sample = Sample(key="", body=f"millrace connection test {uuid.uuid4()}\n".encode())
        self._url = ""

    def checks(self) -> tuple[Check, ...]:
        """The steps in their order."""
        first = ("fields", "reach", "region")
        slow = "The public address gives no answer: check cdn_base_url and the firewall."
        return (
            Check(name="fields", run=self._fields),
            Check(name="reach", run=self._explained(self._check_endpoint), needs=("fields",)),
            Check(name="region", run=self._explained(self._provider.region), needs=("fields", "reach")),
            Check(name="put", run=self._explained(self._put), needs=first),
            Check(name="get", run=self._explained(self._get), needs=("put",)),
            Check(name="public_url", run=self._public_url, needs=("put",), timeout_hint=slow),
            Check(name="cors", run=self._cors, needs=("public_url",), timeout_hint=slow, worst_status="warning"),
            Check(
                name="delete", run=self._delete, needs=("put",), timeout_hint=PROBE_NOT_DELETED, worst_status="warning"
            ),
        )

    async def _fields(self) -> Finding:
        try:
            form = self._provider.checked()
        except InvalidError as error:
            return Finding(status="failed", code=error.code, message=f"{error.field}: {error.message}")
        key = f".probe/{uuid.uuid4()}"
        key = f"{form.prefix}/{key}" if form.prefix else key
        self._sample = msgspec.structs.replace(self._sample, key=key)
        self._url = form.url(key)
        return Finding(message="all fields are well formed")

    async def _check_endpoint(self) -> Finding:
        return await self._provider.check_endpoint(self._sample)

    async def _put(self) -> Finding:
        return await self._provider.put(self._sample)

    async def _get(self) -> Finding:
        body, headers = await self._provider.get(self._sample)
        return self._compared(
            body,
            headers,
            where=f"the {self._provider.wording.container}",
            body_hint="Something between this service and the provider changes what is stored.",
            header_hint="The provider does not keep this header: what is stored is served without it.",
        )

    async def _public_url(self) -> Finding:
        wording = self._provider.wording
        answer = await self._read()
        if isinstance(answer, Finding):
            return answer
        if 300 <= answer.status < 400:
            return Finding(
                status="failed",
                code="Redirect",
                http_status=answer.status,
                message=f"{self._url} leads to another address",
                hint="Enter the address that it leads to as cdn_base_url: mail clients do not follow.",
            )
        if answer.status != 200:
            found = re.search(rb"<Code>\s*([\w.]{1,64})\s*</Code>", answer.body)
            code = found[1].decode() if found else None
            return Finding(
                status="failed",
                code=code,
                http_status=answer.status,
                message=f"{self._url} cannot be read without a key",
                hint=wording.codes.get(code or "", wording.not_public),
            )
        headers = ObjectHeaders(
            content_type=answer.headers.get("Content-Type", ""),
            content_disposition=answer.headers.get("Content-Disposition", ""),
            cache_control=answer.headers.get("Cache-Control", ""),
        )
        return self._compared(
            answer.body,
            headers,
            where=self._url,
            body_hint=f"cdn_base_url has to lead to the top of this {wording.container}.",
            header_hint=f"Let the CDN pass the header on as the {wording.container} has it.",
        )

    async def _cors(self) -> Finding:
        answer = await self._read(Origin=ORIGIN)
        if isinstance(answer, Finding):
            return answer
        allowed = answer.headers.get("Access-Control-Allow-Origin", "")
        if answer.status == 200 and allowed in {"*", ORIGIN}:
            return Finding(message="pages of every origin may use what is stored", http_status=200)
        problem = f"allows {_quoted(allowed)}" if allowed else "does not allow pages of other origins"
        return Finding(
            status="failed",
            code="NoCors",
            http_status=answer.status,
            message=f"{self._url} {problem}; only fonts need that",
            hint=self._provider.wording.no_cors,
        )

    async def _delete(self) -> Finding:
        try:
            status = await self._provider.delete(self._sample)
        except self._provider.errors as error:
            found = self._provider.failure(error)
            return msgspec.structs.replace(
                found,
                message=f"{self._sample.key} stays in the {self._provider.wording.container}: {found.message}",
                hint="Uploads work without this right; only what is to be deleted stays where it is.",
            )
        return Finding(message=f"removed {self._sample.key}", http_status=status)

    async def _read(self, **headers: str) -> _PublicResponse | Finding:
        """Read the public URL without credentials. Returns the response, or a finding when there is none."""
        try:
            async with self._http.request(
                "GET", self._url, headers={"Accept-Encoding": "identity", **headers}
            ) as answer:
                body = bytearray()
                async for piece in answer.content.iter_chunked(MAX_READ_BYTES):
                    body += piece
                    if len(body) >= MAX_READ_BYTES:
                        break
            return _PublicResponse(answer.status, answer.headers, bytes(body))
        except (aiohttp.ClientError, PrivateAddressError) as error:
            if is_refused(error):
                message = f"{self._url} is not reachable from the internet"
                return Finding(
                    status="failed", code="PrivateAddress", message=message, hint=self._provider.wording.not_public
                )
            return Finding(
                status="failed",
                code=type(error).__name__,
                message=f"{self._url} cannot be reached",
                hint="Check that the host of the public address, cdn_base_url where there is one, exists and answers.",
            )

    def _compared(self, body: bytes, found: ObjectHeaders, *, where: str, body_hint: str, header_hint: str) -> Finding:
        if body != self._sample.body:
            message = f"{where} gives something else than was stored"
            return Finding(status="failed", code="Different", http_status=200, message=message, hint=body_hint)
        for name, code in (
            ("content_type", "ContentType"),
            ("content_disposition", "ContentDisposition"),
            ("cache_control", "CacheControl"),
        ):
            stored, arrived = getattr(self._sample.headers, name), getattr(found, name)
            if _plain(stored) != _plain(arrived):
                header = name.replace("_", "-").title()
                message = f"{header} arrives as {_quoted(arrived) if arrived else 'nothing'} from {where}"
                return Finding(status="warning", code=code, http_status=200, message=message, hint=header_hint)
        return Finding(message=f"{where} gives what was stored", http_status=200)

    def _explained(self, step: Callable[[], Awaitable[Finding]]) -> Callable[[], Awaitable[Finding]]:
        async def run() -> Finding:
            try:
                return await step()
            except self._provider.errors as error:
                return self._provider.failure(error)

        return run


def _plain(header: str) -> str:
    """A header without spaces, in lower case: servers change both, and neither changes the meaning."""
    return header.replace(" ", "").lower()


def _quoted(text: str) -> str:
    return repr(text[:QUOTED_CHARS])
