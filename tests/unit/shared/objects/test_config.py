"""The options of requests to S3, and who gets which."""

from typing import Any

import pytest
from aiohttp import web
from obstore.store import S3Store

from shared.config.secret import Secret
from shared.objects import config
from shared.objects.config import S3StoreConfig, request_options
from shared.objects.encryption import sse_options
from support.outgoing import open_store


@pytest.mark.parametrize(
    ("endpoint_url", "checksums"),
    [
        (None, True),
        ("https://s3.dualstack.eu-west-1.amazonaws.com", True),
        ("https://minio.example.com", False),
    ],
)
async def test_aws_alone_gets_checksums(
    endpoint_url: str | None, checksums: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, Any]] = []

    def make(*args: Any, **options: Any) -> S3Store:
        made.append(options)
        return S3Store(*args, **options)

    monkeypatch.setattr(config, "S3Store", make)
    store = S3StoreConfig(
        bucket="media",
        region="eu-west-1",
        access_key_id="a",
        secret_access_key=Secret("s"),
        endpoint_url=endpoint_url,
        sse="AES256",
    )
    async with open_store(store):
        (options,) = made

    assert request_options(sse_options("AES256", ""), checksums=checksums) == options["config"]
    assert checksums == ("checksum_algorithm" in options["config"])
    assert "server_side_encryption" in options["config"]


async def test_an_object_and_each_part_of_one_has_a_checksum() -> None:
    checksums: list[tuple[str, bool]] = []

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        checksums.append((request.method, "x-amz-checksum-sha256" in request.headers))
        if "uploads" in request.query:
            assert request.headers["x-amz-checksum-algorithm"] == "SHA256"
            begun = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
            return web.Response(text=begun, content_type="application/xml")
        ended = "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
        return web.Response(text=ended, content_type="application/xml", headers={"ETag": "e"})

    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        store = S3Store(
            "media",
            endpoint="http://{}:{}".format(*runner.addresses[0]),
            region="eu-west-1",
            access_key_id="a",
            secret_access_key="s",
            client_options={"allow_http": True},
            config=request_options({}, checksums=True),
        )
        await store.put_async("k", b"x", mode="create", use_multipart=False)
        await store.put_async("k", bytes(6 << 20), use_multipart=True, chunk_size=5 << 20)
    finally:
        await runner.cleanup()

    assert [("POST", False)] * 2 + [("PUT", True)] * 3 == sorted(checksums)
