"""An app whose bucket says nothing delays no other app, and gets the whole capacity while it is alone."""

import asyncio
import base64
from collections.abc import Awaitable
from io import BytesIO

import aiohttp
import pytest

from storage.uploads.upload import MAX_LARGE_UPLOADS
from storage.widgets.widget import MAX_PAGES
from support.clients.storage import PHOTO
from support.servers.stub_store import SECRET, Fault, StubStore
from support.waiting import until

LARGE_BYTES = 9 << 20


async def silence(http: aiohttp.ClientSession, shop: dict[str, str], stub: StubStore) -> None:
    """Give the tenant `shop` a bucket that takes requests and says nothing."""
    stub.fault = Fault(deed="hang")
    connector = {
        "access_key": "stub",
        "secret_key": SECRET,
        "bucket_name": "media",
        "region": "eu-west-1",
        "endpoint_url": stub.url,
    }
    async with http.put("/v1/apps/shop/connectors/amazon-storage", json=connector, headers=shop) as answer:
        assert 200 == answer.status


async def put(http: aiohttp.ClientSession, app_key: str, headers: dict[str, str], content: bytes) -> int:
    path = f"/v1/apps/{app_key}/media?kind=attachment"
    octets = headers | {"Content-Type": "application/octet-stream"}
    async with http.put(path, data=BytesIO(content), headers=octets) as answer:
        return answer.status


async def post_page(http: aiohttp.ClientSession, app_key: str, headers: dict[str, str], page: str) -> int:
    html = headers | {"Content-Type": "text/html"}
    async with http.post(f"/v1/apps/{app_key}/widgets", data=BytesIO(page.encode()), headers=html) as answer:
        return answer.status


async def answered_beside(held: list[Awaitable[int]], requests: StubStore, count: int, other: Awaitable[int]) -> int:
    """Send `held`; once `count` of them have reached the silent bucket, the status of `other`."""
    tasks = [asyncio.ensure_future(request) for request in held]
    try:
        await until(lambda: len(requests.requests) >= count)
        status = await other
        assert not any(task.done() for task in tasks)
        return status
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("beside", [MAX_LARGE_UPLOADS, MAX_LARGE_UPLOADS + 4])
async def test_large_uploads_to_a_silent_bucket_delay_no_other_app(
    beside: int, http: aiohttp.ClientSession, shop: dict[str, str], rival: dict[str, str]
) -> None:
    async with StubStore("s3") as stub:
        await silence(http, shop, stub)
        held = [put(http, "shop", shop, b"%d" % number + bytes(LARGE_BYTES)) for number in range(beside)]
        other = put(http, "rival", rival, bytes(LARGE_BYTES))

        assert 201 == await answered_beside([*held], stub, MAX_LARGE_UPLOADS, other)


async def test_pages_with_images_for_a_silent_bucket_delay_no_other_app(
    http: aiohttp.ClientSession, shop: dict[str, str], rival: dict[str, str]
) -> None:
    async with StubStore("s3") as stub:
        await silence(http, shop, stub)
        page = f'<img src="data:image/jpeg;base64,{base64.b64encode(PHOTO).decode()}">'
        held = [post_page(http, "shop", shop, page) for _ in range(MAX_PAGES + 2)]
        other = post_page(http, "rival", rival, page)

        # An image and its thumbnail each.
        assert 200 == await answered_beside([*held], stub, MAX_PAGES * 2, other)
