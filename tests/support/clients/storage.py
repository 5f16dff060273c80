"""A client of the storage service, and the files in its local directory. No test lives here."""

from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp

from shared.contracts.messages import StoreMediaReply, decode
from shared.runtime.settings import Settings
from support.servers.moto import MotoServer

DEMO = Path(__file__).parents[3] / "demo"
PHOTO = (DEMO / "photo.jpg").read_bytes()


def form(content: bytes = PHOTO, *, kind: str | None = None, file_name: str = "photo.jpg") -> aiohttp.FormData:
    """A file as a browser posts it, with a content type that is not its own."""
    # Names as browsers write them; aiohttp would escape every character.
    data = aiohttp.FormData(quote_fields=False)
    if kind is not None:
        data.add_field("kind", kind)
    data.add_field("file", BytesIO(content), filename=file_name, content_type="application/x-lie")
    return data


async def upload(http: aiohttp.ClientSession, headers: dict[str, str], data: Any) -> tuple[int, bytes]:
    """The status and the body of an upload of the tenant `shop`."""
    async with http.post("/v1/apps/shop/media", data=data, headers=headers) as answer:
        return answer.status, await answer.read()


async def stored(http: aiohttp.ClientSession, headers: dict[str, str], data: Any) -> StoreMediaReply:
    """The reply to an upload. Fails on any status but 201."""
    status, body = await upload(http, headers, data)
    assert 201 == status, body
    return decode(body, StoreMediaReply)


def objects(settings: Settings) -> list[str]:
    """The keys of the local directory."""
    root = Path(settings.data_dir) / "objects"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


async def connect(http: aiohttp.ClientSession, headers: dict[str, str], moto: MotoServer, **changed: Any) -> None:
    """Save the Amazon Storage connector of the tenant `shop`: the bucket `media` on moto."""
    value = {
        "access_key": "testing",
        "secret_key": "testing-secret",
        "bucket_name": "media",
        "region": moto.region,
        "endpoint_url": moto.url,
    } | changed
    async with http.put("/v1/apps/shop/connectors/amazon-storage", json=value, headers=headers) as answer:
        assert 200 == answer.status, await answer.text()
