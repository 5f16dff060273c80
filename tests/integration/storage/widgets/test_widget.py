"""A widget's HTML is returned with URLs in place of its images, and every other byte unchanged."""

import asyncio
import base64
import hashlib
import struct
from io import BytesIO
from typing import Any

import aiohttp
import msgspec
import pytest

from shared.runtime.settings import Settings
from storage.app import SERVICE
from support.clients.storage import DEMO, PHOTO, objects
from support.run_service import running


async def test_images_become_urls_and_every_other_byte_stays(
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


async def test_corrupt_image_stays_and_is_reported(
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
async def test_invalid_page_is_refused(
    data: bytes, content_type: str, status: int, field: str, http: aiohttp.ClientSession, shop: dict[str, str]
) -> None:
    headers = shop | {"Content-Type": content_type}
    async with http.post("/v1/apps/shop/widgets", data=BytesIO(data), headers=headers) as answer:
        problem = await answer.json()

    assert (status, field) == (answer.status, problem["error"]["field"])


def embedded(content: bytes, kind: str = "image/jpeg") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


async def post(
    http: aiohttp.ClientSession, headers: dict[str, str], page: str, **query: str
) -> tuple[int, dict[str, Any]]:
    about = headers | {"Content-Type": "text/html"}
    async with http.post("/v1/apps/shop/widgets", data=BytesIO(page.encode()), headers=about, params=query) as answer:
        return answer.status, await answer.json()


async def test_strict_stores_nothing_when_one_image_cannot_be_stored(
    http: aiohttp.ClientSession, shop: dict[str, str], settings: Settings
) -> None:
    page = f'<img src="{embedded(PHOTO)}"><img src="{embedded(PHOTO[:5000])}"><img src="{embedded(b"GIF89a")}">'

    status, reply = await post(http, shop, page, strict="true")

    assert (400, "html") == (status, reply["error"]["field"])
    at = page.index(embedded(PHOTO[:5000]))
    assert f"the picture at byte {at} cannot be stored: the image is damaged" in reply["error"]["message"]
    assert reply["error"]["message"].endswith("nor can 1 more")
    assert [] == objects(settings)
    status, reply = await post(http, shop, page)
    assert [False, True, True] == ["error" in image for image in reply["images"]]


async def test_strict_changes_nothing_for_a_valid_page(http: aiohttp.ClientSession, shop: dict[str, str]) -> None:
    page = f'<img src="{embedded(PHOTO)}">'

    assert await post(http, shop, page) == await post(http, shop, page, strict="true")


async def test_font_becomes_a_file_that_every_page_may_load(
    http: aiohttp.ClientSession, shop: dict[str, str], settings: Settings
) -> None:
    font = struct.pack(">4sIIH", b"wOF2", 0x00010000, 48, 9) + bytes(34)
    page = f"<style>@font-face {{ src: url({embedded(font, 'application/font-woff2')}) }}</style>"

    status, reply = await post(http, shop, page, strict="true")

    assert 200 == status
    (image,) = reply["images"]
    assert "font/woff2" == image["content_type"]
    assert [key for key in objects(settings) if key.startswith("shop/file/") and key.endswith(".woff2")]
    async with http.get(image["url"]) as answer:
        assert ("font/woff2", "*") == (
            answer.headers["Content-Type"],
            answer.headers["Access-Control-Allow-Origin"],
        )


async def test_pages_wait_for_each_other_and_all_are_answered(
    http: aiohttp.ClientSession, shop: dict[str, str], settings: Settings
) -> None:
    page = f'<img src="{embedded(PHOTO)}">' + " " * (9 << 20)

    answers = await asyncio.gather(*(post(http, shop, page) for _ in range(6)))

    assert [200] * 6 == [status for status, _ in answers]
    assert 2 == len(objects(settings))


async def test_limits_of_a_page_are_the_operators(settings: Settings, shop: dict[str, str]) -> None:
    narrow = msgspec.structs.replace(settings, storage_widget_bytes=10_000, storage_widget_images=1)
    two = f'<img src="{embedded(b"GIF89a")}"><img src="{embedded(b"GIF89b")}">'
    async with running(SERVICE, narrow) as storage, aiohttp.ClientSession(storage.url) as http:
        assert [413, 413] == [(await post(http, shop, page))[0] for page in (two, " " * 10_001)]
