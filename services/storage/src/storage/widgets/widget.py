"""
Widgets: the Base64 images and fonts inside HTML are stored and replaced by their URLs. Joins `data_uris` and `uploads`.
"""

import asyncio
from codecs import getincrementaldecoder
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from shared.contracts.messages import MediaKind, StoreMediaReply
from shared.errors import InvalidError, TooLargeError
from shared.runtime.fair_share import FairShare
from storage.content.body import Body, body_of
from storage.content.content_types import sniff_head
from storage.uploads.upload import Examined, Uploads
from storage.widgets.data_uris import DataUri, find_images, splice

T = TypeVar("T")
U = TypeVar("U")

MAX_STORES: Final = 8
"""Concurrent uploads of the images of one page."""

MAX_PAGES: Final = 2
NEWCOMERS: Final = 2
"""
Pages in memory at once, and further ones of apps that have none. Each is there several times: as posted, its images
decoded, and as returned.
"""
MAX_WAITING: Final = 64
RETRY_AFTER_S: Final = 2.0

PIECE_BYTES: Final = 256 * 1024


class WidgetImage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    An image, or font, that was found. `offset` counts bytes of the posted HTML, in UTF-8.

    `bytes` is its decoded size. One with an `error` was left unchanged.
    """

    offset: int
    bytes: int
    sha256: str | None = None
    url: str | None = None
    content_type: str | None = None
    error: str | None = None


class StoreWidgetReply(Struct, frozen=True, kw_only=True):
    """The HTML to save in place of the posted one, and the images found in it, in the order of the page."""

    html: Annotated[Raw, Meta(extra_json_schema={"type": "string"})]
    """Its JSON."""
    images: tuple[WidgetImage, ...]


class Widgets:
    """Stores the images of widgets, of pages of up to `max_bytes` with up to `max_images`."""

    def __init__(self, uploads: Uploads, *, max_bytes: int, max_images: int) -> None:
        self._uploads = uploads
        self._max_bytes = max_bytes
        self._max_images = max_images
        self._pages = FairShare(
            MAX_PAGES, name="pages", reserve=NEWCOMERS, waiting=MAX_WAITING, retry_after_s=RETRY_AFTER_S
        )

    async def store(self, app_key: str, page: Body, *, strict: bool = False) -> StoreWidgetReply:
        """
        Store every Base64 image of a page. A second run changes nothing.

        An invalid image stays in the page and is reported; with `strict` it fails the whole page before anything is
        stored. A failure of a provider, or a full queue, always fails the whole page.

        Returns:
            The page with URLs in place of the images.

        Raises:
            InvalidError: The page is not UTF-8; or, with `strict`, an image is invalid.
            TooLargeError: The page, or the number of its images, exceeds a limit.
            BusyError: Too many pages or images wait, and this app has the most of them.
        """
        async with self._pages.hold(app_key):
            content = await asyncio.to_thread(page.read)
            found = await asyncio.to_thread(_read, content, self._max_bytes, self._max_images)
            bodies = {body.sha256: body for _, body in found if body is not None}
            examined_by_hash = await _for_each(bodies, partial(self._examine, app_key))
            if strict:
                _check_all(found, examined_by_hash)
            good = {sha256: examined for sha256, examined in examined_by_hash.items() if isinstance(examined, Examined)}

            async def put(examined: Examined) -> StoreMediaReply:
                return await self._uploads.store_examined(app_key, examined)

            stored = await _for_each(good, put)
            images = tuple(_image(uri, body, examined_by_hash, stored) for uri, body in found)
            urls = [(uri, image.url) for (uri, _), image in zip(found, images, strict=True) if image.url is not None]
            html = await asyncio.to_thread(_written, content, urls)
            return StoreWidgetReply(html=html, images=images)

    async def _examine(self, app_key: str, body: Body) -> Examined | str:
        kind: MediaKind = "file" if (sniffed := sniff_head(body.head)) is not None and sniffed.font else "widget-image"
        try:
            return await self._uploads.examine(app_key, kind, body)
        except (InvalidError, TooLargeError) as error:
            return error.message


async def _for_each(items: Mapping[str, T], work: Callable[[T], Awaitable[U]]) -> dict[str, U]:
    """Apply `work` to all items, `MAX_STORES` at a time. The first failure cancels the others and is raised."""
    slots = asyncio.Semaphore(MAX_STORES)

    async def one(item: T) -> U:
        async with slots:
            return await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = {key: group.create_task(one(item)) for key, item in items.items()}
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return {key: task.result() for key, task in tasks.items()}


def _read(page: bytes, max_bytes: int, max_images: int) -> list[tuple[DataUri, Body | None]]:
    _check_utf8(page)
    found = find_images(page, max_bytes=max_bytes, max_images=max_images)
    return [(uri, None if uri.error else body_of(uri.content)) for uri in found]


def _check_utf8(page: bytes) -> None:
    # In pieces: one call over many megabytes would block every other thread of the process.
    decoder = getincrementaldecoder("utf-8")()
    for at in range(0, len(page), PIECE_BYTES):
        kept = len(decoder.getstate()[0])
        try:
            decoder.decode(page[at : at + PIECE_BYTES], final=at + PIECE_BYTES >= len(page))
        except UnicodeDecodeError as error:
            raise InvalidError(f"expected UTF-8; byte {at - kept + error.start} is not", field="html") from None


def _written(page: bytes, urls: list[tuple[DataUri, str]]) -> Raw:
    # In pieces, as above. They are JSON, because the event loop would wait for an encoder that has 20 MB to do.
    html = splice(page, urls)
    decoder = getincrementaldecoder("utf-8")()
    texts = (decoder.decode(html[at : at + PIECE_BYTES]) for at in range(0, len(html), PIECE_BYTES))
    return Raw(b'"%b"' % b"".join(msgspec.json.encode(text)[1:-1] for text in texts))


def _check_all(found: list[tuple[DataUri, Body | None]], examined_by_hash: Mapping[str, Examined | str]) -> None:
    bad = [(uri, error) for uri, body in found if (error := _error(uri, body, examined_by_hash)) is not None]
    if bad:
        (first, why), others = bad[0], len(bad) - 1
        more = f", nor can {others} more" if others else ""
        raise InvalidError(f"the picture at byte {first.start} cannot be stored: {why}{more}", field="html")


def _error(uri: DataUri, body: Body | None, examined_by_hash: Mapping[str, Examined | str]) -> str | None:
    if body is None:
        return uri.error
    outcome = examined_by_hash[body.sha256]
    return outcome if isinstance(outcome, str) else None


def _image(
    uri: DataUri,
    body: Body | None,
    examined_by_hash: Mapping[str, Examined | str],
    stored: Mapping[str, StoreMediaReply],
) -> WidgetImage:
    if body is None or body.sha256 not in stored:
        return WidgetImage(offset=uri.start, bytes=len(uri.content), error=_error(uri, body, examined_by_hash))
    original = stored[body.sha256].original
    return WidgetImage(
        offset=uri.start,
        bytes=original.size_bytes,
        sha256=original.sha256,
        url=original.url,
        content_type=original.content_type,
    )
