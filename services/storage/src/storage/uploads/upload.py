"""
Steps of an upload: detect its type, make its key, store original and thumbnails, record the object, return its URLs.

Routes and handlers read the bytes; `storage.placement` selects the provider. A key is made from the content and the
name of its download. The same upload twice is therefore one object, and the content of a URL never changes. After a
crash it may be repeated.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Final, Protocol

from msgspec import Struct

from shared.contracts import subjects
from shared.contracts.messages import MediaKind, StoredObject, StoreMediaReply, encode
from shared.errors import ConflictError, InvalidError, MillraceError, TooLargeError
from shared.messaging.bus import Bus
from shared.runtime.fair_share import FairShare
from shared.runtime.retry import Backoff, retry
from shared.runtime.telemetry import Metrics
from storage.content.body import Body, body_of
from storage.content.content_types import OLE, SVG, ZIP, ContentType, disposition, sniff
from storage.content.ole_types import ole_type
from storage.content.zip_types import zip_type
from storage.images.image import InspectedImage
from storage.images.worker_pool import ImageProcessPool
from storage.placement.failover import ObjectHeaders, Provider, ProviderSlot, store_with_failover
from storage.uploads.object_keys import object_identity, object_key, thumbnail_variant
from storage.uploads.records import DeletedMeanwhileError, ObjectLocation, ObjectRecord, Records

BACKOFF: Final = Backoff(first_s=0.05, max_s=0.5)
RETRY_S: Final = 2.0
"""Concurrent uploads of the same bytes may both get a retryable error. Outages are not waited for here."""

DELETIONS: Final = 5
"""Deletions of the same object during one upload, each of which lets it store the object again."""

SNIFF_BYTES: Final = 256 << 10
"""The largest body whose type is detected without a thread. A text file is read to its end for that."""

MAX_LARGE_UPLOADS: Final = 4
NEWCOMERS: Final = 4
"""
Concurrent uploads of bodies on the disk, and further ones of apps that have none. Each holds parts of its body in
memory, 100 MB in all.
"""
MAX_LARGE_WAITING: Final = 64
LARGE_WAIT_S: Final = 10.0


class UploadLimits(Struct, frozen=True, kw_only=True):
    """Limits of uploads: the largest of each kind, the longer sides of thumbnails, and the acceptance of AVIF."""

    max_bytes: Mapping[MediaKind, int]
    thumbnails_px: tuple[int, ...]
    avif: bool = False


class Providers(Protocol):
    """The providers of an app."""

    def slots(self, app_key: str) -> Sequence[ProviderSlot]:
        """The active providers, in the order of precedence."""
        ...

    def provider_at(self, app_key: str, place: str) -> AbstractAsyncContextManager[Provider] | None:
        """The provider, active or not, of a bucket, container or directory; None where no connector has it."""
        ...


class Examined(Struct, frozen=True, kw_only=True):
    """A checked upload: its type and, for an image, its size and thumbnails."""

    kind: MediaKind
    body: Body
    type: ContentType
    image: InspectedImage | None


class Uploads:
    """Stores, finds and deletes the media of every app."""

    def __init__(
        self,
        *,
        providers: Providers,
        image_pool: ImageProcessPool,
        records: Records,
        bus: Bus,
        metrics: Metrics,
        limits: UploadLimits,
        now: Callable[[], datetime],
    ) -> None:
        self.limits = limits
        self._providers = providers
        self._image_pool = image_pool
        self._records = records
        self._bus = bus
        self._metrics = metrics
        self._now = now
        self._large = FairShare(
            MAX_LARGE_UPLOADS,
            name="large uploads",
            reserve=NEWCOMERS,
            waiting=MAX_LARGE_WAITING,
            wait_s=LARGE_WAIT_S,
            retry_after_s=LARGE_WAIT_S,
        )

    async def store(self, app_key: str, kind: MediaKind, body: Body, *, file_name: str = "") -> StoreMediaReply:
        """
        Store a body and, for an image, its thumbnails. Returns when all of them and the record are durable.

        Raises:
            InvalidError, TooLargeError, BusyError: See `examine`.
            CredentialsError, DeniedError: The provider refuses. No other provider is used then.
            UnavailableError: No provider can be reached.
        """
        return await self.store_examined(app_key, await self.examine(app_key, kind, body), file_name=file_name)

    async def examine(self, app_key: str, kind: MediaKind, body: Body) -> Examined:
        """
        Check a body, and make its thumbnails. Stores nothing.

        Raises:
            InvalidError: It is empty, or not an image although its kind requires one.
            TooLargeError: It exceeds the size limit of its kind, or a limit of the decoder.
            BusyError: The queue of images is full, and this app has the most in it.
        """
        if body.size_bytes == 0:
            raise InvalidError("the file is empty", field="file")
        if body.size_bytes > (most := self.limits.max_bytes[kind]):
            raise TooLargeError(f"the file has {body.size_bytes} bytes; the limit for {kind} is {most}", field="file")
        if body.size_bytes > SNIFF_BYTES:
            sniffed = await asyncio.to_thread(_type_of, body)
        else:
            sniffed = _type_of(body)
        return Examined(kind=kind, body=body, type=sniffed, image=await self._inspect(app_key, kind, sniffed, body))

    async def store_examined(self, app_key: str, examined: Examined, *, file_name: str = "") -> StoreMediaReply:
        """Store a checked upload: the second half of `store`."""
        content_disposition = disposition(examined.type, file_name)
        identity = object_identity(examined.body.sha256, content_disposition)

        async def put(provider: Provider) -> ObjectLocation:
            return await self._put_all(provider, app_key, examined, identity, content_disposition)

        record, failed_over = await self._store_and_record(app_key, examined.kind, identity, put)
        reply = record.reply(failed_over=failed_over)
        # Published with every upload, because an earlier one may have crashed between the record and this.
        message_id = f"{app_key}.{reply.id}.{record.home.place}"
        await self._bus.publish(subjects.object_stored(app_key), encode(reply), message_id=message_id)
        return reply

    async def _store_and_record(
        self,
        app_key: str,
        kind: MediaKind,
        identity: str,
        put: Callable[[Provider], Awaitable[ObjectLocation]],
    ) -> tuple[ObjectRecord, bool]:
        deletion = 0
        for _ in range(DELETIONS):
            location, failed_over = await store_with_failover(self._providers.slots(app_key), put)
            if failed_over:
                self._metrics.count("millrace_storage_failovers_total", provider=location.provider)
            try:
                return await self._records.add(app_key, kind, identity, location, deletion=deletion), failed_over
            except DeletedMeanwhileError as deleted:
                deletion = deleted.revision
        raise ConflictError("the same object is deleted by others again and again", retry_after_s=1)

    async def resolve(self, app_key: str, id: str) -> StoreMediaReply:
        """The location of an object, whichever provider is active now. Raises `NotFoundError`."""
        return (await self._records.get(app_key, id)).reply()

    async def delete(self, app_key: str, id: str) -> None:
        """
        Delete an object at each of its locations, and its record. Copies in a CDN stay.

        A repetition completes an interrupted deletion.

        Raises:
            NotFoundError: There is no such object.
            ConflictError: No connector of the app leads to one of its locations any more, or another request changes
                the object; nothing was deleted.
            DeniedError, CredentialsError, UnavailableError: A provider refused or failed.
        """
        record = await self._records.get(app_key, id)
        pairs = [(location, self._providers.provider_at(app_key, location.place)) for location in record.locations]
        for location, opening in pairs:
            if opening is None:
                raise ConflictError(f"the object lies in {location.place}, which no connector reaches", field="id")
        async with self._records.deletion(record):
            for location, opening in pairs:
                assert opening is not None
                async with opening as provider:
                    for stored in (*location.thumbnails, location.original):
                        await provider.delete(stored.key)

    async def _inspect(self, app_key: str, kind: MediaKind, sniffed: ContentType, body: Body) -> InspectedImage | None:
        if kind not in {"message-image", "widget-image"}:
            return None
        if sniffed is SVG and kind == "widget-image":
            # A browser renders SVG at any size, also from a download: it needs no thumbnail.
            return None
        if not sniffed.image:
            raise InvalidError(f"expected a JPEG, PNG, GIF or WebP image, got {sniffed.name}", field="file")
        return await self._image_pool.inspect(app_key, body, sides_px=self.limits.thumbnails_px, avif=self.limits.avif)

    async def _put_all(
        self, provider: Provider, app_key: str, examined: Examined, identity: str, content_disposition: str
    ) -> ObjectLocation:
        original = _original(provider, app_key, examined, identity, content_disposition)
        objects = [original, *self._thumbnails(provider, app_key, examined)]
        puts = [self._put(provider, app_key, examined.kind, planned) for planned in objects]
        # All puts end before the first failure is raised: nothing is stored after the response.
        for outcome in await asyncio.gather(*puts, return_exceptions=True):
            if outcome is not None:
                raise outcome
        return ObjectLocation(
            provider=provider.name,
            place=provider.place,
            stored_at=self._now(),
            original=original.stored,
            thumbnails=tuple(planned.stored for planned in objects[1:]),
        )

    def _thumbnails(self, provider: Provider, app_key: str, examined: Examined) -> list["_PlannedObject"]:
        if examined.image is None:
            return []
        sha256 = examined.body.sha256
        objects = []
        for side_px, small in zip(self.limits.thumbnails_px, examined.image.thumbnails, strict=True):
            body, variant = body_of(small.content), thumbnail_variant(side_px, self.limits.thumbnails_px)
            key = object_key(provider.prefix, app_key, examined.kind, sha256, small.type.extension, variant=variant)
            stored = StoredObject(
                key=key,
                url=provider.url(key),
                content_type=small.type.name,
                size_bytes=body.size_bytes,
                sha256=body.sha256,
                width=small.width,
                height=small.height,
            )
            objects.append(_PlannedObject(stored=stored, body=body, content_disposition=disposition(small.type, "")))
        return objects

    async def _put(self, provider: Provider, app_key: str, kind: MediaKind, planned: "_PlannedObject") -> None:
        headers = ObjectHeaders(
            content_type=planned.stored.content_type, content_disposition=planned.content_disposition
        )

        def put() -> Awaitable[bool]:
            return provider.put_if_absent(planned.stored.key, planned.body, headers)

        try:
            if planned.body.data is None:
                async with self._large.hold(app_key):
                    new = await retry(put, backoff=BACKOFF, deadline_s=RETRY_S)
            else:
                new = await retry(put, backoff=BACKOFF, deadline_s=RETRY_S)
        except MillraceError as error:
            self._count(provider, kind, error.code)
            raise
        self._count(provider, kind, "stored" if new else "duplicate")
        if new:
            self._metrics.count("millrace_storage_bytes_total", planned.body.size_bytes, provider=provider.name)

    def _count(self, provider: Provider, kind: MediaKind, outcome: str) -> None:
        self._metrics.count("millrace_storage_objects_total", provider=provider.name, kind=kind, outcome=outcome)


def _type_of(body: Body) -> ContentType:
    kind = sniff(body.head, body.pieces)
    if kind not in (ZIP, OLE):
        return kind
    with body.open() as file:
        return zip_type(file) if kind is ZIP else ole_type(file)


class _PlannedObject(Struct, frozen=True, kw_only=True):
    """One object to put: its description and its bytes."""

    stored: StoredObject
    body: Body
    content_disposition: str


def _original(
    provider: Provider, app_key: str, examined: Examined, identity: str, content_disposition: str
) -> _PlannedObject:
    body, image = examined.body, examined.image
    key = object_key(provider.prefix, app_key, examined.kind, identity, examined.type.extension)
    stored = StoredObject(
        key=key,
        url=provider.url(key),
        content_type=examined.type.name,
        size_bytes=body.size_bytes,
        sha256=body.sha256,
        width=image.width if image else None,
        height=image.height if image else None,
    )
    return _PlannedObject(stored=stored, body=body, content_disposition=content_disposition)
