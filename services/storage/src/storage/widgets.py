"""
A widget's HTML with pictures inside -> the same HTML with their URLs. Joins `data_uris` and `uploads`.
"""

import asyncio
from typing import Final

from msgspec import Struct

from shared.errors import InvalidError, TooLargeError
from shared.messages import StoreMediaReply
from storage.data_uris import DataUri, find_images, splice
from storage.image_work import ImageWork
from storage.uploads import Content, Uploads, content_of

AT_ONCE: Final = 8
"""Pictures of one page that are stored side by side (reference: storage.md, 7)."""


class WidgetImage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One picture that was found. `offset` counts bytes of the HTML as it was posted, in UTF-8.

    `bytes` is the size of the decoded picture. With an `error` the picture was left as it was.
    """

    offset: int
    bytes: int
    sha256: str | None = None
    url: str | None = None
    content_type: str | None = None
    error: str | None = None


class StoreWidgetReply(Struct, frozen=True, kw_only=True):
    """The HTML to save in place of the posted one, and what was found in it, in the order of the page."""

    html: str
    images: tuple[WidgetImage, ...]


class Widgets:
    """Stores the pictures of widgets for every app."""

    def __init__(self, uploads: Uploads, image_work: ImageWork) -> None:
        self._uploads = uploads
        self._image_work = image_work

    async def store(self, app_key: str, page: bytes) -> StoreWidgetReply:
        """
        Store every Base64 picture of a page and give the page with their URLs. A second run changes nothing.

        A picture that cannot be stored for what it is stays and is reported; what fails for another reason (a provider,
        a full queue) fails the whole.

        Raises:
            InvalidError: The page is not UTF-8.
            TooLargeError: The page or the number of its pictures is over the limit.
        """
        found = await self._image_work.run(_read, page)
        outcomes = await self._store_each(app_key, {content.sha256: content for _, content in found if content})
        images = tuple(_image(uri, outcomes[content.sha256] if content else None) for uri, content in found)
        urls = [(uri, image.url) for (uri, _), image in zip(found, images, strict=True) if image.url is not None]
        return StoreWidgetReply(html=splice(page, urls).decode(), images=images)

    async def _store_each(self, app_key: str, contents: dict[str, Content]) -> dict[str, StoreMediaReply | str]:
        """Every distinct picture once, by its hash: where it is, or why it stays."""
        slots = asyncio.Semaphore(AT_ONCE)

        async def store(content: Content) -> StoreMediaReply | str:
            async with slots:
                try:
                    return await self._uploads.store(app_key, "widget-image", content)
                except (InvalidError, TooLargeError) as error:
                    return error.message

        try:
            async with asyncio.TaskGroup() as group:
                tasks = {sha256: group.create_task(store(content)) for sha256, content in contents.items()}
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return {sha256: task.result() for sha256, task in tasks.items()}


def _read(page: bytes) -> list[tuple[DataUri, Content | None]]:
    try:
        page.decode()
    except UnicodeDecodeError as error:
        raise InvalidError(f"expected UTF-8; byte {error.start} is not", field="html") from None
    return [(uri, None if uri.error else content_of(uri.content)) for uri in find_images(page)]


def _image(uri: DataUri, outcome: StoreMediaReply | str | None) -> WidgetImage:
    if isinstance(outcome, StoreMediaReply):
        original = outcome.original
        return WidgetImage(
            offset=uri.start,
            bytes=original.size_bytes,
            sha256=original.sha256,
            url=original.url,
            content_type=original.content_type,
        )
    return WidgetImage(offset=uri.start, bytes=len(uri.content), error=outcome or uri.error)
