"""One suite for every member of `StoreConfig`. A member without a place to be tested in fails it."""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import pytest_asyncio

from shared.errors import InvalidError, NotFoundError, UnavailableError
from shared.objects.config import AzureStoreConfig, LocalStoreConfig, S3StoreConfig, StoreConfig
from shared.objects.local_files import Data
from shared.objects.store import ObjectStore
from support.outgoing import open_store
from support.servers.azurite import AzuriteServer
from support.servers.moto import MotoServer

PLACES = {LocalStoreConfig: "local_place", S3StoreConfig: "s3_place", AzureStoreConfig: "azure_place"}
"""The fixture of each member's config, whose bucket, container or directory is empty."""

KEYS = [
    "a.png",
    "shop/2026/11/22/2026-11-22 02:45:00.csv.gz",
    "shop/media/ab/0123456789abcdef.jpg",
    "shop/ğüş İ.txt",
    "shop/50%20off+tax=yes&more,(1)'~@!$;.txt",
    "shop/what?#.txt",
    "shop/.probe/x",
    "a" * 200,
]


@pytest.fixture
def local_place(tmp_path: Path) -> StoreConfig:
    return LocalStoreConfig(root=str(tmp_path / "objects"))


@pytest.fixture
async def s3_place(moto: MotoServer) -> StoreConfig:
    await moto.create_bucket("bucket")
    return S3StoreConfig(
        bucket="bucket",
        region=moto.region,
        access_key_id=moto.credentials.access_key_id,
        secret_access_key=moto.credentials.secret_access_key,
        endpoint_url=moto.url,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def azurite() -> AsyncIterator[AzuriteServer]:
    if AzuriteServer.installed() is None:
        pytest.skip("Azurite is not installed: `npm install --prefix .azurite azurite`")
    async with AzuriteServer() as server:
        yield server


@pytest.fixture
async def azure_place(azurite: AzuriteServer, request: pytest.FixtureRequest) -> StoreConfig:
    container = f"c{abs(hash(request.node.nodeid)):x}"
    await azurite.create_container(container)
    return AzureStoreConfig(
        account_name=azurite.account_name,
        account_key=azurite.account_key,
        container=container,
        endpoint=azurite.endpoint,
    )


@pytest.fixture(params=get_args(StoreConfig), ids=lambda member: str(member.__struct_config__.tag))
def config(request: pytest.FixtureRequest) -> StoreConfig:
    """A config of each member in turn."""
    place: StoreConfig = request.getfixturevalue(PLACES[request.param])
    return place


Open = Callable[..., AbstractAsyncContextManager[ObjectStore]]


@pytest.fixture
async def store(config: StoreConfig) -> AsyncIterator[ObjectStore]:
    """Below a folder of its own, as every customer's objects are."""
    async with open_store(at(config, prefix="folder of/shop")) as store:
        yield store


def at(config: Any, **fields: Any) -> Any:
    """The same place with other fields."""
    return msgspec.structs.replace(config, **fields)


async def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return sorted([found.key async for found in store.list(prefix)])


async def put(store: ObjectStore, key: str, data: bytes = b"content") -> None:
    await store.put(key, data, content_type="text/plain")


def test_every_member_of_the_union_has_a_place() -> None:
    assert set(get_args(StoreConfig)) == set(PLACES)


@pytest.mark.parametrize("key", KEYS)
async def test_what_was_put_is_got_listed_and_deleted_under_its_key(store: ObjectStore, key: str) -> None:
    await store.put(key, b"content", content_type="text/plain")

    assert b"content" == (await store.get(key)).data
    assert key == (await store.head(key)).key
    assert [key] == await keys(store)

    await store.delete(key)
    assert [] == await keys(store)


CONTENTS: dict[str, Data] = {
    "empty": b"",
    "short": b"x",
    "array": bytearray(b"array"),
    "view": memoryview(b"view of it")[:4],
    "in parts": b"0123456789abcdef" * (17 << 16),
}


@pytest.mark.parametrize("data", CONTENTS.values(), ids=CONTENTS)
async def test_bytes_come_back_as_they_are_whatever_their_size(store: ObjectStore, data: Data) -> None:
    await store.put("a/b", data, content_type="text/plain")

    stored = await store.get("a/b")
    assert bytes(data) == stored.data
    assert len(data) == stored.info.size_bytes


async def test_a_put_replaces_the_old_object(store: ObjectStore) -> None:
    await put(store, "a", b"old and longer")
    before = await store.head("a")
    await put(store, "a", b"new")

    assert b"new" == (await store.get("a")).data
    assert before.etag != (await store.head("a")).etag


async def test_put_if_absent_returns_whether_it_was_the_first(store: ObjectStore) -> None:
    first = await store.put_if_absent("a/b", b"one", content_type="text/plain")
    second = await store.put_if_absent("a/b", b"two", content_type="text/plain")

    assert first is not None
    assert second is None
    assert b"one" == (await store.get("a/b")).data
    assert first.etag in ("", (await store.head("a/b")).etag)
    assert (store.provider == "local") is (first.etag == "")


async def test_headers_are_kept_where_the_store_keeps_any(store: ObjectStore) -> None:
    headers: dict[str, Any] = {
        "content_type": "image/png",
        "cache_control": "public, max-age=31536000, immutable",
        "content_disposition": "attachment; filename=\"a.png\"; filename*=UTF-8''%C4%9F.png",
        "metadata": {"app_key": "shop", "rows": "10"},
    }
    await store.put("put.png", b"", **headers)
    await store.put_if_absent("created.png", b"", **headers)

    for key in ("put.png", "created.png"):
        stored = await store.get(key)
        assert "image/png" == stored.content_type
        if store.provider != "local":
            assert headers["cache_control"] == stored.cache_control
            assert headers["content_disposition"] == stored.content_disposition
            assert headers["metadata"] == stored.metadata


async def test_info_has_size_time_and_version(store: ObjectStore) -> None:
    await put(store, "a/b", b"12345")

    info = await store.head("a/b")
    assert 5 == info.size_bytes
    assert abs(datetime.now(UTC) - info.modified_at) < timedelta(minutes=5)
    assert info.etag
    assert '"' not in info.etag
    assert [info] == [found async for found in store.list("a")]
    assert info == (await store.get("a/b")).info


@pytest.mark.parametrize(("start", "size", "expected"), [(0, 4, b"0123"), (4, 2, b"45"), (8, 2, b"89"), (8, 9, b"89")])
async def test_a_range_returns_the_stored_bytes(store: ObjectStore, start: int, size: int, expected: bytes) -> None:
    await put(store, "a/b.txt", b"0123456789")

    assert expected == await store.get_range("a/b.txt", start, size)
    with pytest.raises(NotFoundError):
        await store.get_range("a/c.txt", start, size)


async def test_list_goes_by_folder(store: ObjectStore) -> None:
    for key in ("a/1", "a/b/2", "ab/3", "4"):
        await put(store, key)

    assert ["4", "a/1", "a/b/2", "ab/3"] == await keys(store)
    assert ["a/1", "a/b/2"] == await keys(store, "a")
    assert ["a/1", "a/b/2"] == await keys(store, "a/")
    assert [] == await keys(store, "none")


async def test_a_missing_object_is_a_not_found_error(store: ObjectStore) -> None:
    with pytest.raises(NotFoundError):
        await store.get("a/none")
    with pytest.raises(NotFoundError):
        await store.head("a/none")


async def test_deleting_a_missing_object_is_no_error(store: ObjectStore) -> None:
    await store.delete("a/none")
    await put(store, "a/b")
    await store.delete("a/none")

    assert ["a/b"] == await keys(store)


BAD_KEYS = ["", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", "a\nb", "a\x00", "\udcff", "x" * 1025, "a/tmp#12"]


@pytest.mark.parametrize("key", BAD_KEYS)
async def test_a_bad_key_is_refused_before_any_request(store: ObjectStore, key: str) -> None:
    for call in (
        store.put(key, b"", content_type="a/b"),
        store.put_if_absent(key, b"", content_type="a/b"),
        store.get(key),
        store.head(key),
        store.delete(key),
    ):
        with pytest.raises(InvalidError) as caught:
            await call
        assert "key" == caught.value.field


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "a/b\r\nx-evil: 1"},
        {"content_type": "a/b", "content_disposition": 'attachment; filename="ğ"'},
        {"content_type": "a/b", "metadata": {"Not-A-Name": "x"}},
        {"content_type": "a/b", "metadata": {"name": "line\nbreak"}},
    ],
)
async def test_what_cannot_be_a_header_is_refused(store: ObjectStore, headers: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        await store.put("a", b"", **headers)
    with pytest.raises(InvalidError):
        await store.put_if_absent("a", b"", **headers)

    assert [] == await keys(store)


async def test_one_prefix_does_not_reach_another(config: StoreConfig) -> None:
    async with (
        open_store(at(config, prefix="one")) as one,
        open_store(at(config, prefix="one/")) as same,
        open_store(at(config, prefix="on")) as other,
        open_store(config) as whole,
    ):
        await put(one, "a")

        assert ["a"] == await keys(same)
        assert [] == await keys(other)
        assert ["one/a"] == await keys(whole)
        with pytest.raises(InvalidError):
            await other.get("../one/a")


@pytest.mark.parametrize("prefix", ["/absolute", "a//b", "../up", "a\nb"])
async def test_a_bad_prefix_is_refused(config: StoreConfig, prefix: str) -> None:
    with pytest.raises(InvalidError):
        async with open_store(at(config, prefix=prefix)):
            pass


async def test_ping_passes_where_the_place_is_there(store: ObjectStore) -> None:
    await store.ping()

    assert [] == await keys(store)


async def test_a_missing_bucket_container_or_directory_is_reported_by_every_call(
    config: StoreConfig, tmp_path: Path
) -> None:
    if isinstance(config, LocalStoreConfig):
        async with open_store(config) as store:
            shutil.rmtree(tmp_path / "objects")
            with pytest.raises(UnavailableError):
                await store.ping()
        return
    field = "bucket" if isinstance(config, S3StoreConfig) else "container"
    async with open_store(at(config, **{field: "no-such-place"})) as store:
        for call in (store.ping(), put(store, "a"), store.get("a"), store.delete("a"), keys(store)):
            with pytest.raises(NotFoundError) as caught:
                await call
            assert "no-such-place" in caught.value.message or field in caught.value.message


def test_a_config_goes_through_json_by_its_tag(config: StoreConfig) -> None:
    tag = type(config).__struct_config__.tag

    raw = msgspec.to_builtins(config, enc_hook=lambda secret: secret.reveal())

    assert tag == raw["type"]
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert(raw | {"oops": 1}, StoreConfig, dec_hook=lambda kind, value: kind(value))
    assert config == msgspec.convert(raw, StoreConfig, dec_hook=lambda kind, value: kind(value))
