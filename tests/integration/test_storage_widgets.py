"""A widget's HTML comes back with its pictures stored: URLs in their place, every other byte as it was."""

import base64
import hashlib
from collections.abc import AsyncIterator
from io import BytesIO

import aiohttp
import pytest

from servers.services import RunService
from servers.storage import DEMO, PHOTO, objects
from shared.settings import Settings
from storage.app import SERVICE


@pytest.fixture
async def http(
    run_service: RunService,
) -> AsyncIterator[aiohttp.ClientSession]:
    async with run_service(SERVICE) as storage, aiohttp.ClientSession(storage.url) as session:
        yield session


async def test_pictures_become_urls_and_every_other_byte_stays(
    http: aiohttp.ClientSession, shop: dict[str, str], settings: Settings
) -> None:
    page = (DEMO / "widget.html").read_bytes().decode()

    async with http.post("/v1/apps/shop/widgets", data=page, headers=shop | {"Content-Type": "text/html"}) as answer:
        reply = await answer.json()

    assert 200 == answer.status
    first, second, third = reply["images"]
    assert first["url"] == third["url"] != second["url"]
    expected = page
    for image in reply["images"]:
        start = image["offset"]
        uri = page.encode()[start:].decode()
        uri = uri[: min(uri.index(end) for end in "\"')" if end in uri)]
        assert hashlib.sha256(base64.b64decode(uri.partition(",")[2])).hexdigest() == image["sha256"]
        expected = expected.replace(uri, image["url"])
        async with http.get(image["url"]) as served:
            assert image["sha256"] == hashlib.sha256(await served.read()).hexdigest()
            assert image["content_type"] == served.headers["Content-Type"]
    assert expected == reply["html"]
    assert '{{ profile.name | default: "friend" }}' in reply["html"]
    assert 4 == len(objects(settings))

    data = aiohttp.FormData()
    data.add_field("file", reply["html"].encode(), filename="widget.html", content_type="text/html")
    async with http.post("/v1/apps/shop/widgets", data=data, headers=shop) as answer:
        assert {"html": reply["html"], "images": []} == await answer.json()


async def test_svg_becomes_a_download_that_an_img_tag_can_show(
    http: aiohttp.ClientSession, shop: dict[str, str]
) -> None:
    svg = base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").decode()
    page = f'<img src="data:image/svg+xml;base64,{svg}">'

    async with http.post("/v1/apps/shop/widgets", data=page, headers=shop | {"Content-Type": "text/html"}) as answer:
        (image,) = (await answer.json())["images"]

    async with http.get(image["url"]) as answer:
        assert "image/svg+xml" == answer.headers["Content-Type"] == image["content_type"]
        assert "attachment" == answer.headers["Content-Disposition"]


async def test_corrupt_picture_stays_and_is_reported(
    http: aiohttp.ClientSession, shop: dict[str, str], settings: Settings
) -> None:
    cut = base64.b64encode(PHOTO[:5000]).decode()
    page = f'<p>é</p><img src="data:image/jpeg;base64,{cut}"><img src="data:image/png;base64,????">'

    async with http.post("/v1/apps/shop/widgets", data=page, headers=shop | {"Content-Type": "text/html"}) as answer:
        reply = await answer.json()

    assert page == reply["html"]
    assert [page.encode().index(b"data:"), page.encode().rindex(b"data:")] == [i["offset"] for i in reply["images"]]
    assert "damaged" in reply["images"][0]["error"]
    assert "breaks off" in reply["images"][1]["error"]
    assert [] == objects(settings)


@pytest.mark.parametrize(
    ("data", "content_type", "status", "field"),
    [
        (b"\xff\xfe", "text/html", 400, "html"),
        (b" " * (20 * 1024 * 1024 + 1), "text/html", 413, "html"),
        (b'<img src="data:image/gif;base64,R0lGODlh">' * 201, "text/html", 413, "html"),
        (b"{}", "application/json", 400, "Content-Type"),
    ],
    ids=["not UTF-8", "too long", "too many", "no HTML"],
)
async def test_page_that_cannot_be_taken_is_refused(
    data: bytes, content_type: str, status: int, field: str, http: aiohttp.ClientSession, shop: dict[str, str]
) -> None:
    headers = shop | {"Content-Type": content_type}
    async with http.post("/v1/apps/shop/widgets", data=BytesIO(data), headers=headers) as answer:
        problem = await answer.json()

    assert (status, field) == (answer.status, problem["error"]["field"])
