"""
A store of objects that misbehaves as a test says, for S3 and for Azure. Signatures are not checked. No test lives here.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, Self

import msgspec
from aiohttp import web
from msgspec import Struct

from shared.config.secret import Secret
from storage.providers.amazon import AmazonStorageConfig
from storage.providers.azure import AzureStorageConfig

SECRET: Final = "c2VjcmV0IG9mIHNob3A="

Misbehavior = Literal[
    "answer", "hang", "hang in body", "close", "close in body", "close in upload", "store and close", "garbage"
]
MODIFIED = {"Last-Modified": "Sun, 22 Nov 2026 05:23:36 GMT", "ETag": '"e"'}
HELD = ("Content-Type", "Cache-Control", "Content-Disposition")


class Fault(Struct, frozen=True, kw_only=True):
    """
    A fault that replaces the right answer to requests of `methods`, signed or `public`.

    `answer` returns `status` with the provider's XML of `code`, and says that the bucket is in `region`; `hang` reads
    the request and sends nothing; `hang in body` and `close in body` promise 100 bytes and send 7; `close in upload`
    closes before the request is read; `store and close` does what was asked and sends nothing; `garbage` is no HTTP at
    all. The fault ends after `times` requests, where that is not 0. `conditional` limits it to requests with
    If-None-Match.
    """

    deed: Misbehavior = "answer"
    status: int = 500
    code: str = ""
    location: str = ""
    region: str = ""
    methods: frozenset[str] = frozenset({"PUT", "GET", "HEAD", "DELETE"})
    public: bool = False
    times: int = 0
    conditional: bool = False


def stub_connector(stub: "StubStore", **changed: Any) -> Any:
    """A connector of the bucket, or container, `media` on a stub, with the secret `SECRET`."""
    if stub.speaks == "s3":
        amazon = AmazonStorageConfig(
            access_key="stub",
            secret_key=Secret(SECRET),
            bucket_name="media",
            region="eu-west-1",
            endpoint_url=stub.url,
            prefix="p",
        )
        return msgspec.structs.replace(amazon, **changed)
    azure = AzureStorageConfig(
        account_name="stub",
        account_key=Secret(SECRET),
        container_name="media",
        blob_endpoint=f"{stub.url}/stub",
        prefix="p",
    )
    return msgspec.structs.replace(azure, **changed)


class StubStore:
    """
    An async context manager. `url` is its address, `requests` are the received requests, `headers`
    theirs, `objects` the stored ones.

    What is read comes back as it was stored, but for `changed_body` and `lost_header`. Where `tokens` is set, other
    session tokens have expired. `retention` is the default retention of the bucket, as XML. `overwrites` takes no
    notice of If-None-Match.
    """

    def __init__(self, speaks: Literal["s3", "azure"], region: str = "eu-west-1") -> None:
        self.url = ""
        self.fault: Fault | None = None
        self.allowed_origin = "*"
        self.changed_body: bytes | None = None
        self.lost_header = ""
        self.overwrites = False
        self.tokens: set[str] | None = None
        self.retention = ""
        self.requests: list[tuple[str, str]] = []
        self.headers: list[Mapping[str, str]] = []
        self.objects: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.speaks = speaks
        self._region = region
        self._ended = asyncio.Event()

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = "http://{}:{}".format(*self._runner.addresses[0])
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._ended.set()
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        fault = self._fault_of(request)
        if fault is not None and fault.deed == "close in upload":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        body = await request.read()
        method, path = request.method, request.path
        if "comp=batch" in request.query_string:
            # Azure's deletes come as a batch, here of one.
            found = re.search(rb"\r\n(DELETE) (\S+) HTTP", body)
            assert found is not None
            method, path = found[1].decode(), found[2].decode()
        self.requests.append((method, path))
        self.headers.append(request.headers)
        if fault is not None and method in fault.methods and fault.deed != "store and close":
            return await self._misbehave(request, fault)
        if self.tokens is not None and request.headers.get("x-amz-security-token") not in self.tokens:
            return self._error(400, "ExpiredToken", method)
        answers: dict[str, Callable[[web.Request, str, bytes], Awaitable[web.StreamResponse]]] = {
            "PUT": self._put,
            "GET": self._get,
            "HEAD": self._get,
            "DELETE": self._delete,
        }
        answer = await answers[method](request, path, body)
        if fault is not None and method in fault.methods:
            assert request.transport is not None
            request.transport.close()
        return answer

    def _fault_of(self, request: web.Request) -> Fault | None:
        """The fault for a request, counted. Azure's deletes come as POSTs: their method is in the body."""
        fault = self.fault
        if fault is None or ("Authorization" not in request.headers) != fault.public:
            return None
        if request.method not in {*fault.methods, "POST"} or (
            fault.conditional and "If-None-Match" not in request.headers
        ):
            return None
        if fault.times:
            self.fault = msgspec.structs.replace(fault, times=fault.times - 1) if fault.times > 1 else None
        return fault

    async def _put(self, request: web.Request, path: str, body: bytes) -> web.StreamResponse:
        if path in self.objects and request.headers.get("If-None-Match") == "*" and not self.overwrites:
            return self._error(*((412, "PreconditionFailed") if self.speaks == "s3" else (409, "BlobAlreadyExists")))
        prefix = "" if self.speaks == "s3" else "x-ms-blob-"
        self.objects[path] = body, {name: request.headers.get(prefix + name.lower(), "") for name in HELD}
        return web.Response(status=200 if self.speaks == "s3" else 201, headers=MODIFIED)

    async def _get(self, request: web.Request, path: str, body: bytes) -> web.StreamResponse:
        about = {"x-amz-bucket-region": self._region}
        if self.allowed_origin:
            about["Access-Control-Allow-Origin"] = self.allowed_origin
        if self.speaks == "s3" and path.count("/") == 1:
            return self._tell_of_bucket(request, about)
        if path not in self.objects:
            return self._error(404, "NoSuchKey" if self.speaks == "s3" else "BlobNotFound", request.method)
        body, headers = self.objects[path]
        kept = {name: value for name, value in headers.items() if name != self.lost_header}
        body = body if self.changed_body is None else self.changed_body
        return web.Response(body=body, headers=kept | MODIFIED | about)

    def _tell_of_bucket(self, request: web.Request, about: dict[str, str]) -> web.Response:
        if "location" in request.query:
            xml = f"<LocationConstraint>{self._region}</LocationConstraint>"
        elif "object-lock" not in request.query:
            xml = "<ListBucketResult></ListBucketResult>" if "list-type" in request.query else ""
        elif not self.retention:
            return self._error(404, "ObjectLockConfigurationNotFoundError")
        else:
            rule = f"<Rule><DefaultRetention>{self.retention}</DefaultRetention></Rule>"
            xml = f"<ObjectLockConfiguration>{rule}</ObjectLockConfiguration>"
        return web.Response(text=xml, headers=about, content_type="application/xml")

    async def _delete(self, request: web.Request, path: str, body: bytes) -> web.StreamResponse:
        self.objects.pop(path, None)
        if self.speaks == "s3":
            return web.Response(status=204)
        part = (
            "--b\r\nContent-Type: application/http\r\nContent-ID: 0\r\n\r\nHTTP/1.1 202 Accepted\r\n\r\n\r\n--b--\r\n"
        )
        return web.Response(status=202, body=part.encode(), headers={"Content-Type": "multipart/mixed; boundary=b"})

    async def _misbehave(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        if fault.deed == "answer":
            told = self._error(fault.status, fault.code, request.method)
            if fault.location:
                told.headers["Location"] = fault.location
            if fault.region:
                told.headers["x-amz-bucket-region"] = fault.region
            return told
        if fault.deed == "hang":
            await self._ended.wait()
        elif fault.deed == "garbage":
            transport.write(b"220 ready\r\n")
        elif fault.deed != "close" and request.method != "HEAD":
            answer = web.StreamResponse(headers=MODIFIED | {"Content-Length": "100"})
            await answer.prepare(request)
            await answer.write(b"content")
            if fault.deed == "hang in body":
                await self._ended.wait()
        transport.close()
        return web.Response()

    def _error(self, status: int, code: str, method: str = "") -> web.Response:
        xml = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>said the stub</Message></Error>" if code else ""
        return web.Response(status=status, text="" if method == "HEAD" else xml, content_type="application/xml")
