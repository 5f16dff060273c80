"""Stored objects: one by one, in pages, at each location, and their deletion."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from shared.contracts.messages import ResolveMedia, StoreMediaReply, decode
from shared.contracts.subjects import RESOLVE_MEDIA
from shared.errors import NotFoundError
from shared.messaging.bus import Bus
from shared.runtime.settings import Settings
from storage.uploads.records import ObjectPage, ObjectRecord
from support.clients.storage import PHOTO, connect, form, objects, stored
from support.servers.moto import MotoServer

OBJECTS = "/v1/apps/shop/objects"
CONNECTOR = "/v1/apps/shop/connectors/amazon-storage"


async def asked(http: aiohttp.ClientSession, headers: dict[str, str], path: str) -> tuple[int, bytes]:
    async with http.get(path, headers=headers) as answer:
        return answer.status, await answer.read()


async def record(http: aiohttp.ClientSession, headers: dict[str, str], id: str) -> ObjectRecord:
    status, body = await asked(http, headers, f"{OBJECTS}/{id}")
    assert 200 == status, body
    return decode(body, ObjectRecord)


async def deleted(http: aiohttp.ClientSession, headers: dict[str, str], id: str) -> tuple[int, bytes]:
    async with http.delete(f"{OBJECTS}/{id}", headers=headers) as answer:
        return answer.status, await answer.read()


async def test_same_bytes_of_another_kind_are_another_object(http: aiohttp.ClientSession, shop: dict[str, str]) -> None:
    image = await stored(http, shop, form(PHOTO))
    attachment = await stored(http, shop, form(PHOTO, kind="attachment"))

    assert ["message-image", "attachment"] == [reply.id.rpartition("-")[0] for reply in (image, attachment)]
    for reply in (image, attachment):
        found = await record(http, shop, reply.id)
        assert (reply.original, "local") == (found.home.original, found.home.place)
        assert reply == found.reply()


@pytest.mark.parametrize("id", ["file-" + "0" * 32, "message-image-" + "0" * 32])
async def test_unknown_object_is_not_found(id: str, http: aiohttp.ClientSession, shop: dict[str, str]) -> None:
    assert 404 == (await asked(http, shop, f"{OBJECTS}/{id}"))[0]
    assert 404 == (await deleted(http, shop, id))[0]


async def test_id_in_another_format_than_an_upload_s_is_refused(
    http: aiohttp.ClientSession, shop: dict[str, str]
) -> None:
    status, body = await asked(http, shop, f"{OBJECTS}/0123")

    assert (400, "id") == (status, decode(body, dict)["error"]["field"])


async def test_objects_are_listed_in_pages_and_by_kind(http: aiohttp.ClientSession, shop: dict[str, str]) -> None:
    files = [(await stored(http, shop, form(b"file %d" % n, kind="file"))).id for n in range(5)]
    image = (await stored(http, shop, form(PHOTO))).id
    await stored(http, shop, form(b"file 0", kind="file"))

    listed, after, pages = [], "0", 0
    while True:
        status, body = await asked(http, shop, f"{OBJECTS}?limit=2&after={after}")
        assert 200 == status
        page = decode(body, ObjectPage)
        listed += [found.id for found in page.objects]
        pages += 1
        if page.next is None:
            break
        after = page.next

    assert [*files, image] == listed
    assert 3 == pages
    _, body = await asked(http, shop, f"{OBJECTS}?kind=message-image")
    assert [image] == [found.id for found in decode(body, ObjectPage).objects]


async def test_empty_page_ends_the_list(http: aiohttp.ClientSession, shop: dict[str, str]) -> None:
    assert (200, b'{"objects":[],"next":null}') == await asked(http, shop, OBJECTS)


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "after=-1", "kind=picture"])
async def test_invalid_query_of_a_list_is_refused(
    query: str, http: aiohttp.ClientSession, shop: dict[str, str]
) -> None:
    status, body = await asked(http, shop, f"{OBJECTS}?{query}")

    assert (400, query.partition("=")[0]) == (status, decode(body, dict)["error"]["field"])


async def test_objects_of_one_tenant_are_unknown_to_another(
    http: aiohttp.ClientSession, shop: dict[str, str], rival: dict[str, str], settings: Settings
) -> None:
    reply = await stored(http, shop, form(PHOTO))

    assert 403 == (await asked(http, rival, OBJECTS))[0]
    assert 403 == (await deleted(http, rival, reply.id))[0]
    async with http.delete(f"/v1/apps/rival/objects/{reply.id}", headers=rival) as answer:
        assert 404 == answer.status
    status, body = await asked(http, rival, "/v1/apps/rival/objects")
    assert (200, ()) == (status, decode(body, ObjectPage).objects)
    assert 2 == len(objects(settings))


async def test_deleted_object_is_deleted_everywhere_and_can_be_stored_again(
    http: aiohttp.ClientSession, shop: dict[str, str], settings: Settings, bus: Bus
) -> None:
    reply = await stored(http, shop, form(PHOTO, file_name="a.jpg"))
    other = await stored(http, shop, form(b"%PDF-1.7", kind="attachment", file_name="a.pdf"))

    assert (204, b"") == await deleted(http, shop, reply.id)

    assert [other.original.key] == objects(settings)
    assert 404 == (await asked(http, shop, f"{OBJECTS}/{reply.id}"))[0]
    assert 404 == (await asked(http, {}, reply.original.url))[0]
    with pytest.raises(NotFoundError):
        await bus.request(RESOLVE_MEDIA, ResolveMedia(app_key="shop", id=reply.id), StoreMediaReply)
    _, body = await asked(http, shop, OBJECTS)
    assert [other.id] == [found.id for found in decode(body, ObjectPage).objects]
    assert 404 == (await deleted(http, shop, reply.id))[0]
    assert reply == await stored(http, shop, form(PHOTO))
    assert 204 == (await deleted(http, shop, other.id))[0]
    assert [] == list((Path(settings.data_dir) / "names").rglob("*.pdf"))


async def test_object_that_moved_keeps_its_former_urls_until_it_is_deleted(
    http: aiohttp.ClientSession, shop: dict[str, str], moto: MotoServer, settings: Settings
) -> None:
    await moto.create_bucket("media", public=True)
    local = await stored(http, shop, form(PHOTO))
    await connect(http, shop, moto)
    moved = await stored(http, shop, form(PHOTO))

    found = await record(http, shop, local.id)
    assert local.id == moved.id
    assert ["amazon-storage", "local"] == [home.provider for home in found.locations]
    assert [moved.original.url, local.original.url] == [home.original.url for home in found.locations]
    for reply in (local, moved):
        assert (200, PHOTO) == await asked(http, {}, reply.original.url)

    assert 204 == (await deleted(http, shop, local.id))[0]
    assert [] == objects(settings)
    assert 404 == (await asked(http, {}, moved.original.url))[0]


async def test_object_is_not_deleted_by_half(
    http: aiohttp.ClientSession, shop: dict[str, str], moto: MotoServer, settings: Settings
) -> None:
    await moto.create_bucket("media", public=True)
    await stored(http, shop, form(PHOTO))
    await connect(http, shop, moto)
    reply = await stored(http, shop, form(PHOTO))
    async with http.delete(CONNECTOR, headers=shop) as answer:
        assert 204 == answer.status

    status, body = await deleted(http, shop, reply.id)

    assert 409 == status
    assert "which no connector reaches" in decode(body, dict)["error"]["message"]
    assert 2 == len(objects(settings))
    await connect(http, shop, moto, active=False)
    assert 204 == (await deleted(http, shop, reply.id))[0]
    assert [] == objects(settings)


async def test_delete_that_the_bucket_refuses_is_denied_and_the_object_stays(
    http: aiohttp.ClientSession, shop: dict[str, str], moto: MotoServer
) -> None:
    await moto.create_bucket("media", public=True)
    user = await moto.create_user("writer", actions=["s3:PutObject", "s3:GetObject"])
    await connect(http, shop, moto, access_key=user.access_key_id, secret_key=user.secret_access_key.reveal())
    await moto.demand_real_keys()
    reply = await stored(http, shop, form(PHOTO))

    status, body = await deleted(http, shop, reply.id)

    assert (403, "denied") == (status, decode(body, dict)["error"]["code"])
    assert reply == (await record(http, shop, reply.id)).reply()
    await moto.demand_real_keys(False)
    assert (200, PHOTO) == await asked(http, {}, reply.original.url)


async def test_uploads_and_deletions_of_the_same_bytes_leave_no_dead_url_and_no_object_without_a_record(
    http: aiohttp.ClientSession, shop: dict[str, str]
) -> None:
    for number in range(40):
        content = b"%%PDF-%d" % number
        first = await stored(http, shop, form(content, kind="attachment"))

        async def delete_after(delay_s: float, id: str = first.id) -> int:
            await asyncio.sleep(delay_s)
            return (await deleted(http, shop, id))[0]

        uploads = (stored(http, shop, form(content, kind="attachment")) for _ in range(2))
        *_, status = await asyncio.gather(*uploads, delete_after(number % 10 / 1000))

        assert 204 == status
        recorded = (await asked(http, shop, f"{OBJECTS}/{first.id}"))[0]
        served = (await asked(http, {}, first.original.url))[0]
        assert recorded == served, f"round {number}"
