"""Media go in by HTTP and by NATS, lie in the local directory, and are served from there with the right headers."""

import asyncio
import gzip
import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zipfile import ZipFile

import aiohttp
import pytest
from PIL import Image
from yarl import URL

from shared.contracts import streams, subjects
from shared.contracts.messages import ObjectStored, ResolveMedia, StoreMedia, StoreMediaReply, decode
from shared.errors import InvalidError, NotFoundError
from shared.messaging.bus import Bus
from shared.runtime.settings import Settings
from shared.service import RunningService
from storage.images.image import PIPELINE
from storage.uploads.records import ObjectRecord
from support.clients.storage import PHOTO, form, objects, stored, upload
from support.stored_messages import messages

PHOTO_SHA256 = hashlib.sha256(PHOTO).hexdigest()


async def refused(http: aiohttp.ClientSession, headers: dict[str, str], data: Any) -> tuple[int, str]:
    status, body = await upload(http, headers, data)
    problem: dict[str, Any] = decode(body, dict)
    return status, f"{problem['error'].get('field')}: {problem['error']['message']}"


async def test_photograph_is_stored_with_a_thumbnail_and_both_urls_serve_it(
    http: aiohttp.ClientSession, storage: RunningService, shop: dict[str, str], settings: Settings
) -> None:
    reply = await stored(http, shop, form(PHOTO, kind="message-image"))

    assert ("local", f"message-image-{PHOTO_SHA256[:32]}", "shop") == (reply.provider, reply.id, reply.app_key)
    start = f"shop/message-image/{PHOTO_SHA256[:2]}/{PHOTO_SHA256[:32]}"
    assert f"{start}.jpg" == reply.original.key
    assert f"{storage.url}/cdn/{start}.jpg" == reply.original.url
    assert (640, 427, PHOTO_SHA256) == (reply.original.width, reply.original.height, reply.original.sha256)
    assert reply.thumbnail is not None
    assert f"{start}_t320{PIPELINE}.jpg" == reply.thumbnail.key
    assert [f"{start}.jpg", f"{start}_t320{PIPELINE}.jpg"] == objects(settings)
    async with http.get(reply.original.url) as answer:
        assert PHOTO == await answer.read()
    async with http.get(reply.thumbnail.url) as answer:
        thumbnail = await answer.read()
    assert (320, 214) == Image.open(BytesIO(thumbnail)).size
    assert reply.thumbnail.sha256 == hashlib.sha256(thumbnail).hexdigest()


async def test_same_upload_twice_is_one_object_with_the_same_urls(
    http: aiohttp.ClientSession, shop: dict[str, str], settings: Settings
) -> None:
    first = await stored(http, shop, form(PHOTO, file_name="a.jpg"))
    before = objects(settings)

    again, other_name = await asyncio.gather(
        stored(http, shop, form(PHOTO, file_name="a.jpg")), stored(http, shop, form(PHOTO, file_name="b.png"))
    )

    assert first == again == other_name
    assert before == objects(settings)


async def test_object_is_recorded_and_published_before_the_reply(
    http: aiohttp.ClientSession, shop: dict[str, str], bus: Bus
) -> None:
    reply = await stored(http, shop, form(PHOTO))
    await stored(http, shop, form(PHOTO))

    published = await messages(bus, streams.OBJECTS, subjects.object_stored("shop"))
    assert [reply] == [decode(message.data, ObjectStored) for message in published]
    async with http.get(f"/v1/apps/shop/objects/{reply.id}", headers=shop) as answer:
        assert (200, reply) == (answer.status, decode(await answer.read(), ObjectRecord).reply())
    assert reply == await bus.request(
        subjects.RESOLVE_MEDIA, ResolveMedia(app_key="shop", id=reply.id), StoreMediaReply
    )


async def test_object_of_one_tenant_is_unknown_to_another(
    http: aiohttp.ClientSession, shop: dict[str, str], rival: dict[str, str], bus: Bus
) -> None:
    reply = await stored(http, shop, form(PHOTO))

    async with http.get(f"/v1/apps/rival/objects/{reply.id}", headers=rival) as answer:
        assert 404 == answer.status
    async with http.get(f"/v1/apps/shop/objects/{reply.id}", headers=rival) as answer:
        assert 403 == answer.status
    with pytest.raises(NotFoundError):
        await bus.request(subjects.RESOLVE_MEDIA, ResolveMedia(app_key="rival", id=reply.id), StoreMediaReply)


async def test_small_body_by_nats_gets_the_same_reply_as_by_http(
    http: aiohttp.ClientSession, shop: dict[str, str], bus: Bus
) -> None:
    by_nats = await bus.request(subjects.STORE_MEDIA, StoreMedia(app_key="shop", content=PHOTO), StoreMediaReply)

    assert await stored(http, shop, form(PHOTO)) == by_nats
    with pytest.raises(InvalidError, match="expected a JPEG"):
        await bus.request(subjects.STORE_MEDIA, StoreMedia(app_key="shop", content=b"hello"), StoreMediaReply)
    with pytest.raises(InvalidError, match="1 to 64 letters"):
        await bus.request(subjects.STORE_MEDIA, StoreMedia(app_key="../x", content=PHOTO), StoreMediaReply)


async def test_attachment_keeps_its_name_as_a_download(http: aiohttp.ClientSession, shop: dict[str, str]) -> None:
    reply = await stored(http, shop, form(b"%PDF-1.7 hello", kind="attachment", file_name="fatura-ş.pdf"))

    async with http.get(reply.original.url) as answer:
        headers = answer.headers
    assert "application/pdf" == headers["Content-Type"]
    assert "attachment; filename=\"fatura-_.pdf\"; filename*=UTF-8''fatura-%C5%9F.pdf" == headers["Content-Disposition"]
    assert reply.thumbnail is None


async def test_each_name_of_the_same_bytes_is_an_object_of_its_own(
    http: aiohttp.ClientSession, shop: dict[str, str]
) -> None:
    first, second, again, unnamed = [
        await stored(http, shop, form(b"%PDF-1.4 x", kind="attachment", file_name=name))
        for name in ("GIZLI taslak v1.pdf", "Fiyat listesi.pdf", "Fiyat listesi.pdf", "")
    ]

    assert second == again
    assert 3 == len({first.id, second.id, unnamed.id})
    assert first.original.sha256 == second.original.sha256
    async with http.delete(f"/v1/apps/shop/objects/{first.id}", headers=shop) as answer:
        assert 204 == answer.status
    async with http.get(second.original.url) as answer:
        assert 'attachment; filename="Fiyat listesi.pdf"' == answer.headers["Content-Disposition"]
    async with http.get(unnamed.original.url) as answer:
        assert "attachment" == answer.headers["Content-Disposition"]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("%50 indirim.pdf", "%2550%20indirim.pdf"),
        ("50%20off.pdf", "50%2520off.pdf"),
        # What HTML has a browser write for a quote and a line break.
        ("a%22b%0D%0A%.pdf", "ab%25.pdf"),
    ],
)
async def test_a_name_is_read_as_a_browser_writes_it(
    sent: str, kept: str, http: aiohttp.ClientSession, shop: dict[str, str]
) -> None:
    boundary = "xYzZY"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="kind"\r\n\r\nattachment\r\n'
    file = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{sent}"\r\n\r\n%PDF-1.4 x'
    body = f"{head}{file}\r\n--{boundary}--\r\n".encode()
    headers = shop | {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    async with http.post("/v1/apps/shop/media", data=BytesIO(body), headers=headers) as answer:
        reply = decode(await answer.read(), StoreMediaReply)
    async with http.get(reply.original.url) as answer:
        assert answer.headers["Content-Disposition"].endswith(f"filename*=UTF-8''{kept}")


async def test_a_document_is_served_as_what_it_is(http: aiohttp.ClientSession, shop: dict[str, str]) -> None:
    document = BytesIO()
    with ZipFile(document, "w") as archive:
        for name in ("[Content_Types].xml", "word/document.xml"):
            archive.writestr(name, b"<x/>" * 10_000)
    reply = await stored(http, shop, form(document.getvalue(), kind="attachment", file_name="teklif.docx"))

    assert reply.original.key.endswith(".docx")
    async with http.get(reply.original.url) as answer:
        assert (
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
            == answer.headers["Content-Type"]
            == reply.original.content_type
        )


async def test_markup_is_served_as_a_download_that_runs_nothing(
    http: aiohttp.ClientSession, shop: dict[str, str]
) -> None:
    page = b"<!doctype html><script>alert(1)</script>"
    reply = await stored(http, shop, form(page, kind="attachment", file_name="harmless.png"))

    async with http.get(reply.original.url) as answer:
        headers = answer.headers
    assert reply.original.key.endswith(".html")
    assert headers["Content-Disposition"].startswith("attachment")
    assert "nosniff" == headers["X-Content-Type-Options"]
    assert "default-src 'none'; style-src 'unsafe-inline'; sandbox" == headers["Content-Security-Policy"]


async def test_served_object_may_be_cached_for_a_year_revalidated_and_read_in_part(
    http: aiohttp.ClientSession, shop: dict[str, str]
) -> None:
    url = (await stored(http, shop, form(PHOTO))).original.url

    async with http.get(url) as answer:
        assert "image/jpeg" == answer.headers["Content-Type"]
        assert "public, max-age=31536000, immutable" == answer.headers["Cache-Control"]
        assert "inline" == answer.headers["Content-Disposition"]
        etag = answer.headers["ETag"]
    async with http.get(url, headers={"If-None-Match": etag}) as answer:
        assert (304, b"") == (answer.status, await answer.read())
    async with http.get(url, headers={"Range": "bytes=100-199"}) as answer:
        assert (206, PHOTO[100:200]) == (answer.status, await answer.read())
        assert f"bytes 100-199/{len(PHOTO)}" == answer.headers["Content-Range"]
    async with http.get(url, headers={"Range": f"bytes={len(PHOTO)}-"}) as answer:
        assert 416 == answer.status


@pytest.mark.parametrize(
    "path",
    [
        "/cdn/../secret.txt",
        "/cdn/%2e%2e/secret.txt",
        "/cdn/..%2fsecret.txt",
        "/cdn//etc/passwd",
        "/cdn/%2fetc%2fpasswd",
        "/cdn/shop/message-image/ab/..%2f..%2f..%2f..%2fsecret.txt",
        "/cdn/shop/message-image",
        "/cdn/shop/message-image/ab/" + "0" * 32 + ".jpg",
        "/cdn/shop/message-image/ab/" + "0" * 32 + ".jpg%00",
        "/cdn/linked/file/ab/" + "0" * 32 + ".txt",
    ],
)
async def test_no_path_leads_out_of_the_directory(
    path: str, storage: RunningService, http: aiohttp.ClientSession, settings: Settings
) -> None:
    secret = Path(settings.data_dir) / "secret.txt"
    secret.write_text("secret")
    folder = secret.parent / "objects" / "linked" / "file" / "ab"
    folder.mkdir(parents=True)
    (folder / ("0" * 32 + ".txt")).symlink_to(secret)

    async with aiohttp.ClientSession() as session, session.get(URL(storage.url + path, encoded=True)) as answer:
        assert 404 == answer.status
        assert b"secret" not in await answer.read()


@pytest.mark.parametrize(
    ("kind", "content", "status", "problem_text"),
    [
        (None, b"", 400, "file: the file is empty"),
        (None, b"hello", 400, "file: expected a JPEG, PNG, GIF or WebP image, got text/plain"),
        (None, PHOTO[: len(PHOTO) // 2], 400, "file: the image is damaged"),
        (None, b"<svg xmlns='http://www.w3.org/2000/svg'/>", 400, "got image/svg+xml"),
        ("picture", PHOTO, 400, "kind: expected one of message-image, widget-image"),
        ("file", b"x" * ((5 << 20) + 1), 413, "file: expected at most 5242880 bytes"),
        (None, b"\xff\xd8\xff" + b"x" * (10 << 20), 413, "the limit for message-image is 10485760"),
        (None, b"x" * ((25 << 20) + 1), 413, "file: expected at most 26214400 bytes"),
    ],
    ids=["empty", "text", "damaged", "svg", "kind", "file", "image", "any"],
)
async def test_bad_upload_is_refused_saying_what_was_expected(
    kind: str | None,
    content: bytes,
    status: int,
    problem_text: str,
    http: aiohttp.ClientSession,
    shop: dict[str, str],
    settings: Settings,
) -> None:
    answered, message = await refused(http, shop, form(content, kind=kind))

    assert status == answered
    assert problem_text in message
    assert [] == objects(settings)


@pytest.mark.parametrize("data", [{"kind": "file"}, b"PNG", None])
async def test_body_that_is_no_multipart_is_refused(
    data: Any, http: aiohttp.ClientSession, shop: dict[str, str]
) -> None:
    status, message = await refused(http, shop, data)

    assert (400, "Content-Type: expected multipart/form-data") == (status, message)


@pytest.mark.parametrize(
    ("body", "problem_text"),
    [
        (b"", "broken"),
        (b"--b\r\n", "body: "),
        (b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc', "broken"),
        (b'--b\r\nContent-Disposition: form-data; name="kind"\r\n\r\nfile\r\n--b--\r\n', "file: expected a file"),
        (b'--b\r\nContent-Disposition: form-data; name="other"\r\n\r\nx\r\n--b--\r\n', "other: expected the fields"),
        (b'--b\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nx\r\n--b--\r\n', "expected the fields"),
        (b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c--\r\n--b--\r\n", "expected the fields"),
        (b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\na\r\n' * 2 + b"--b--\r\n", "file: expected one"),
        (
            b'--b\r\nContent-Disposition: form-data; name="file"\r\nContent-Transfer-Encoding: base64\r\n\r\nQQ==\r\n'
            b"--b--\r\n",
            "file: expected the bytes as they are",
        ),
        (b'--b\r\nContent-Disposition: form-data; name="kind"\r\n\r\n' + b"f" * 99 + b"\r\n--b--", "kind: expected at"),
    ],
)
async def test_broken_multipart_is_refused(
    body: bytes, problem_text: str, http: aiohttp.ClientSession, shop: dict[str, str]
) -> None:
    headers = shop | {"Content-Type": "multipart/form-data; boundary=b"}
    async with http.post("/v1/apps/shop/media", data=body, headers=headers) as answer:
        problem = await answer.json()

    assert 400 == answer.status or (413 == answer.status and problem_text.startswith("kind"))
    assert problem_text in f"{problem['error'].get('field')}: {problem['error']['message']}"


async def test_packed_file_is_stored_unpacked_and_a_packed_form_is_refused(
    http: aiohttp.ClientSession, shop: dict[str, str]
) -> None:
    packed = shop | {"Content-Encoding": "gzip"}

    async with http.put("/v1/apps/shop/media", data=gzip.compress(PHOTO), headers=packed) as answer:
        assert 201 == answer.status
        assert PHOTO_SHA256 == (await answer.json())["original"]["sha256"]
    async with http.post("/v1/apps/shop/media", data=form(PHOTO), headers=packed) as answer:
        told = (await answer.json())["error"]
        assert (415, "Content-Encoding") == (answer.status, told["field"])


async def test_file_name_cannot_break_out_of_its_header(http: aiohttp.ClientSession, shop: dict[str, str]) -> None:
    name = quote('../a"\r\nSet-Cookie: x=1\r\n\r\n.txt', safe="")
    file = f"form-data; name=\"file\"; filename*=UTF-8''{name}"
    kind = 'form-data; name="kind"'
    body = (
        f"--b\r\nContent-Disposition: {kind}\r\n\r\nattachment\r\n"
        f"--b\r\nContent-Disposition: {file}\r\n\r\nhello\r\n--b--\r\n"
    ).encode()
    headers = shop | {"Content-Type": "multipart/form-data; boundary=b"}

    reply = await stored(http, headers, body)

    async with http.get(reply.original.url) as answer:
        assert "Set-Cookie" not in answer.headers
        assert answer.headers["Content-Disposition"].startswith("attachment; filename=")
        assert b"hello" == await answer.read()


async def test_name_that_is_no_utf8_is_a_name_all_the_same(http: aiohttp.ClientSession, shop: dict[str, str]) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="caf\xe9.txt"\r\n\r\nhello\r\n--b--\r\n'
    kind = b'--b\r\nContent-Disposition: form-data; name="kind"\r\n\r\nattachment\r\n'

    reply = await stored(http, shop | {"Content-Type": "multipart/form-data; boundary=b"}, kind + body)

    async with http.get(reply.original.url) as answer:
        assert (200, b"hello") == (answer.status, await answer.read())
