"""Uploads as clients send them: raw, large, slow, broken off, or with a wrong length."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec
import pytest

from shared.contracts.messages import StoreMediaReply, decode
from shared.http.bodies import TransferRate
from shared.runtime.settings import Settings
from shared.service import RunningService
from storage.app import SERVICE
from storage.content.body import SPOOL_BYTES
from storage.routes import media
from support.clients.storage import PHOTO, form, objects, stored
from support.run_service import running
from support.waiting import until

LARGE = os.urandom(SPOOL_BYTES + 1234)


def spooled(settings: Settings) -> list[str]:
    """Files without a name that this process holds open for uploads, and those with one that it left there."""
    folder = Path(settings.data_dir) / "uploads"
    found = [str(path) for path in folder.rglob("*")]
    for number in Path("/proc/self/fd").iterdir():
        if number.is_symlink() and str(number.readlink()).startswith(str(folder)):
            found.append(str(number))
    return found


async def put(
    http: aiohttp.ClientSession, headers: dict[str, str], data: Any, **query: str
) -> tuple[int, StoreMediaReply | dict[str, Any]]:
    data = BytesIO(data) if isinstance(data, bytes) else data
    async with http.put("/v1/apps/shop/media", params=query, data=data, headers=headers) as answer:
        body = await answer.read()
    if answer.status == 201:
        return answer.status, decode(body, StoreMediaReply)
    return answer.status, msgspec.json.decode(body)["error"]


async def test_raw_body_gets_the_same_reply_as_a_form(http: aiohttp.ClientSession, shop: dict[str, str]) -> None:
    status, reply = await put(http, shop, PHOTO)

    assert 201 == status
    assert await stored(http, shop, form(PHOTO)) == reply


async def test_raw_body_may_have_a_kind_and_a_name_and_no_length(
    http: aiohttp.ClientSession, shop: dict[str, str]
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"%PDF-1.7 "

    status, reply = await put(http, shop, pieces(), kind="attachment", file_name="../fatura.pdf")

    assert 201 == status
    assert isinstance(reply, StoreMediaReply)
    assert ("attachment", 27) == (reply.kind, reply.original.size_bytes)
    async with http.get(reply.original.url) as answer:
        assert 'attachment; filename="fatura.pdf"' == answer.headers["Content-Disposition"]


@pytest.mark.parametrize(("query", "field"), [({"kind": "picture"}, "kind"), ({"file_name": "x" * 256}, "file_name")])
async def test_invalid_query_is_refused(
    query: dict[str, str], field: str, http: aiohttp.ClientSession, shop: dict[str, str]
) -> None:
    status, error = await put(http, shop, PHOTO, **query)

    assert isinstance(error, dict)
    assert (400, field) == (status, error["field"])


@pytest.mark.parametrize("name", ["a\r\nSet-Cookie: x=1", "..\\..\\a.txt", 'a"; b="c', "a\x00b", "  .  "])
async def test_file_name_stays_inside_its_header(name: str, http: aiohttp.ClientSession, shop: dict[str, str]) -> None:
    status, reply = await put(http, shop, b"hello", kind="attachment", file_name=name)

    assert 201 == status
    assert isinstance(reply, StoreMediaReply)
    async with http.get(reply.original.url) as answer:
        assert "Set-Cookie" not in answer.headers
        disposition = answer.headers["Content-Disposition"]
    assert not set("\r\n\x00\\/") & set(disposition)
    assert disposition.count('"') in {0, 2}


async def test_large_body_leaves_nothing_on_the_disk(
    http: aiohttp.ClientSession, shop: dict[str, str], settings: Settings
) -> None:
    status, reply = await put(http, shop, LARGE, kind="attachment")
    by_form = await stored(http, shop, form(LARGE, kind="attachment", file_name=""))

    assert (201, by_form) == (status, reply)
    assert hashlib.sha256(LARGE).hexdigest() == by_form.original.sha256
    async with http.get(by_form.original.url) as answer:
        assert LARGE == await answer.read()
    assert [] == spooled(settings)


async def test_image_on_the_disk_has_a_thumbnail_too(http: aiohttp.ClientSession, shop: dict[str, str]) -> None:
    # Decoders ignore the bytes after a JPEG's end, so this one is as long as we like.
    status, reply = await put(http, shop, PHOTO + bytes(SPOOL_BYTES))

    assert 201 == status
    assert isinstance(reply, StoreMediaReply)
    assert reply.thumbnail is not None
    assert (640, 320) == (reply.original.width, reply.thumbnail.width)


async def test_every_configured_size_of_thumbnail_is_stored(settings: Settings, shop: dict[str, str]) -> None:
    several = msgspec.structs.replace(settings, storage_thumbnails_px="200,64,640")
    async with running(SERVICE, several) as storage, aiohttp.ClientSession(storage.url) as http:
        reply = await stored(http, shop, form(PHOTO))
        async with http.get(reply.other_thumbnails[0].url) as answer:
            assert 200 == answer.status

    assert reply.thumbnail is not None
    assert [200, 64, 640] == [small.width for small in (reply.thumbnail, *reply.other_thumbnails)]
    assert 4 == len(objects(settings))


@pytest.mark.parametrize("sizes", ["8", "4096", "64,64"])
async def test_invalid_sizes_stop_the_start(sizes: str, settings: Settings) -> None:
    wrong = msgspec.structs.replace(settings, storage_thumbnails_px=sizes)
    with pytest.raises(ExceptionGroup) as raised:
        async with running(SERVICE, wrong):
            pass

    assert "expected different sizes" in str(list(leaves(raised.value)))


def leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from leaves(part)
    else:
        yield error


async def raw(
    storage: RunningService,
    headers: dict[str, str],
    about: str,
    body: bytes,
    *,
    close: bool,
    path: str = "/v1/apps/shop/media",
    method: str = "PUT",
) -> bytes:
    """A request written by hand; all that comes back, once the other side has closed too."""
    parts = urlsplit(storage.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    lines = [
        f"{method} {path}{'?kind=file' if method == 'PUT' else ''} HTTP/1.1",
        "Host: storage",
        f"Authorization: {headers['Authorization']}",
        about,
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    await writer.drain()
    if close:
        writer.close()
    try:
        async with asyncio.timeout(20):
            return await reader.read(65536)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_too_long_a_body_is_refused_before_it_is_sent(
    storage: RunningService, shop: dict[str, str], settings: Settings
) -> None:
    answer = await raw(storage, shop, f"Content-Length: {6 << 20}", b"only the beginning", close=False)

    assert b"HTTP/1.1 413" in answer
    assert b"expected at most 5242880 bytes" in answer


async def test_the_limit_that_a_form_is_told_is_that_of_its_file(storage: RunningService, shop: dict[str, str]) -> None:
    about = f"Content-Length: {26 << 20}\r\nContent-Type: multipart/form-data; boundary=b"
    answer = await raw(storage, shop, about, b"--b\r\n", close=False, method="POST")

    assert b"HTTP/1.1 413" in answer
    assert b"expected at most 26214400 bytes" in answer


async def test_body_that_breaks_off_is_stored_neither_whole_nor_in_part(
    storage: RunningService, shop: dict[str, str], settings: Settings, http: aiohttp.ClientSession
) -> None:
    await raw(storage, shop, f"Content-Length: {4 << 20}", os.urandom(3 << 20), close=True)
    await raw(storage, shop, "Transfer-Encoding: chunked", b"5\r\nhello\r\n", close=True)

    await until(lambda: not spooled(settings))
    assert [] == objects(settings)
    assert 201 == (await put(http, shop, b"hello", kind="file"))[0]


@pytest.mark.parametrize(
    ("about", "body"),
    [
        ("Content-Length: 3", b"hello and goodbye"),
        ("Content-Length: -1", b"hello"),
        ("Content-Length: five", b"hello"),
        ("Content-Length: 5\r\nContent-Length: 6", b"hello!"),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", b"zz\r\nhello\r\n0\r\n\r\n"),
    ],
)
async def test_wrong_length_stores_no_more_than_it_announces(
    about: str,
    body: bytes,
    storage: RunningService,
    shop: dict[str, str],
    settings: Settings,
    http: aiohttp.ClientSession,
) -> None:
    answer = await raw(storage, shop, about, body, close=False)

    assert b"500" not in answer.split(b"\r\n")[0]
    contents = {(Path(settings.data_dir) / "objects" / key).read_bytes() for key in objects(settings)}
    assert contents <= {b"hel"}
    assert 201 == (await put(http, shop, b"fine", kind="file"))[0]


async def test_body_that_comes_too_slowly_is_refused(
    storage: RunningService, shop: dict[str, str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "TransferRate", partial(TransferRate, grace_s=0.2))

    answer = await raw(storage, shop, f"Content-Length: {4 << 20}", b"x", close=False)

    assert b"HTTP/1.1 400" in answer
    assert b"more slowly than" in answer
    assert [] == objects(settings)
    assert [] == spooled(settings)


async def test_missing_length_is_an_empty_file(storage: RunningService, shop: dict[str, str]) -> None:
    answer = await raw(storage, shop, "Content-Type: application/octet-stream", b"", close=False)

    assert b"HTTP/1.1 400" in answer
    assert b"the file is empty" in answer


@pytest.mark.parametrize("name", ["kind", "x"])
async def test_ten_thousand_fields_are_refused_at_the_first_that_is_too_much(
    name: str, http: aiohttp.ClientSession, shop: dict[str, str], settings: Settings
) -> None:
    field = f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\nfile\r\n'.encode()
    headers = shop | {"Content-Type": "multipart/form-data; boundary=b"}

    async with http.post("/v1/apps/shop/media", data=field * 10_000 + b"--b--\r\n", headers=headers) as answer:
        problem = await answer.json()

    assert 400 == answer.status
    assert name == problem["error"]["field"]
    assert [] == objects(settings)


async def test_part_with_endless_headers_is_refused(http: aiohttp.ClientSession, shop: dict[str, str]) -> None:
    headers = shop | {"Content-Type": "multipart/form-data; boundary=b"}
    body = b"--b\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"x" * 1000) for n in range(1000)) + b"\r\nx\r\n--b--\r\n"

    async with http.post("/v1/apps/shop/media", data=body, headers=headers) as answer:
        assert 400 == answer.status


async def test_wrong_extension_and_type_change_nothing(http: aiohttp.ClientSession, shop: dict[str, str]) -> None:
    status, reply = await put(http, shop | {"Content-Type": "text/html"}, PHOTO, file_name=quote("evil.html"))

    assert 201 == status
    assert isinstance(reply, StoreMediaReply)
    assert reply.original.key.endswith(".jpg")
    async with http.get(reply.original.url) as answer:
        assert "image/jpeg" == answer.headers["Content-Type"]
