"""
What happens to an upload: its type is told, its key named, original and thumbnail stored, the object recorded, its URL
given. Holds the port that a provider fills. How bytes arrive is told in routes and handlers.

The key is made from the content, so the same upload twice is one object, a URL never shows something else than it did,
and doing everything again after a crash changes nothing.
"""

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from msgspec import Struct

from shared import subjects
from shared.buckets import BucketStore
from shared.bus import Bus
from shared.errors import InvalidError, MillraceError, NotFoundError, TooLargeError
from shared.messages import MediaKind, StoredObject, StoreMediaReply, decode, encode
from shared.retry import Backoff, retry
from shared.telemetry import Metrics
from storage.content_types import SVG, ContentType, disposition, sniff
from storage.image_work import ImageWork
from storage.images import PIPELINE, THUMBNAIL_PX, Picture, picture_from_bytes

MIB: Final = 1024 * 1024

LIMIT_BYTES: Final[dict[MediaKind, int]] = {
    "message-image": 10 * MIB,
    "widget-image": 10 * MIB,
    "attachment": 25 * MIB,
    "file": 5 * MIB,
}
"""The largest upload of each kind; a `file` is a font or the like (reference: storage.md, 8.6)."""

MAX_BYTES: Final = max(LIMIT_BYTES.values())

CACHE_CONTROL: Final = "public, max-age=31536000, immutable"
"""A year, the longest that RFC 9111 caches agree on: the content of a key never changes."""


BACKOFF: Final = Backoff(first_s=0.05, max_s=0.5)
RETRY_S: Final = 2.0
"""Two uploads of the same bytes at once may both be told to come again. What is out of reach is not waited for here."""


class Headers(Struct, frozen=True, kw_only=True):
    """What a provider serves an object with."""

    content_type: str
    content_disposition: str
    cache_control: str = CACHE_CONTROL


class Provider(Protocol):
    """
    Where objects lie. Uploads call it, many at a time, and again for about two seconds while its error is retryable.

    Errors go to the uploader as they are: `CredentialsError` and `DeniedError` when the provider refuses the keys,
    `UnavailableError` when it cannot be reached.
    """

    name: str
    prefix: str
    """What every key begins with, without a slash at the end; may be empty."""

    async def put_if_absent(self, key: str, content: bytes, headers: Headers) -> bool:
        """
        Store a whole object under a key that nobody else gives other content, and say whether it was new.

        Durable when it returns. Cancelled, it has stored all or nothing.
        """
        ...

    def url(self, key: str) -> str:
        """The permanent address of a key, which needs no credential."""
        ...


ProviderOf = Callable[[str], AbstractAsyncContextManager[Provider]]
"""The provider that is active for an app; it stays open while the context is."""


class Content(Struct, frozen=True):
    """A body that was read whole, and its SHA-256 in hexadecimal."""

    data: bytes
    sha256: str

    @property
    def id(self) -> str:
        """How the object is called: 128 bits of its hash."""
        return self.sha256[:32]


class Intake:
    """Collects a body piece by piece, counted and hashed on the way, so that too long a one is refused early."""

    def __init__(self, limit_bytes: int, *, field: str = "file") -> None:
        self._limit_bytes = limit_bytes
        self._field = field
        self._data = bytearray()
        self._hash = hashlib.sha256()

    def add(self, piece: bytes) -> None:
        """Raises `TooLargeError` as soon as the limit is passed."""
        if len(self._data) + len(piece) > self._limit_bytes:
            raise TooLargeError(f"expected at most {self._limit_bytes} bytes", field=self._field)
        self._data += piece
        self._hash.update(piece)

    def content(self) -> Content:
        """What was collected."""
        return Content(bytes(self._data), self._hash.hexdigest())


def content_of(data: bytes) -> Content:
    """A body that was never in pieces."""
    return Content(data, hashlib.sha256(data).hexdigest())


def object_key(prefix: str, app_key: str, kind: MediaKind, id: str, extension: str, *, variant: str = "") -> str:
    """`<prefix>/<app>/<kind>/<first two digits>/<id><variant>.<extension>`. No two tenants share one."""
    key = f"{app_key}/{kind}/{id[:2]}/{id}{variant}.{extension}"
    return f"{prefix}/{key}" if prefix else key


class Uploads:
    """Stores media for every app and knows where they are."""

    def __init__(
        self, *, provider_of: ProviderOf, image_work: ImageWork, records: BucketStore, bus: Bus, metrics: Metrics
    ) -> None:
        self._provider_of = provider_of
        self._image_work = image_work
        self._records = records
        self._bus = bus
        self._metrics = metrics

    async def store(self, app_key: str, kind: MediaKind, content: Content, *, file_name: str = "") -> StoreMediaReply:
        """
        Store a body with, for an image, its thumbnail; answer once both and the record of them are durable.

        Raises:
            InvalidError: It is empty, or no picture although the kind wants one.
            TooLargeError: Over the limit of its kind, or more pixels than are decoded.
            BusyError: Too many pictures wait.
            CredentialsError, DeniedError, UnavailableError: The provider's; never hidden by storing elsewhere.
        """
        _check_size(kind, content)
        sniffed = sniff(content.data)
        picture = await self._picture(kind, sniffed, content)
        async with self._provider_of(app_key) as provider:
            original = _original(provider, app_key, kind, content, sniffed, picture, file_name)
            thumbnail = _thumbnail(provider, app_key, kind, content.id, picture) if picture else None
            pieces = [original, thumbnail] if thumbnail else [original]
            puts = [self._put(provider, kind, piece) for piece in pieces]
            for outcome in await asyncio.gather(*puts, return_exceptions=True):
                if outcome is not None:
                    raise outcome
        reply = StoreMediaReply(
            id=content.id,
            app_key=app_key,
            kind=kind,
            provider=provider.name,
            original=original.stored,
            thumbnail=thumbnail.stored if thumbnail else None,
        )
        await self._record(reply)
        return reply

    async def resolve(self, app_key: str, id: str) -> StoreMediaReply:
        """Where an object is, whichever provider is active now. Raises `NotFoundError`."""
        subjects.check_app_key(app_key)
        stored = await self._records.get(f"{app_key}.{subjects.check_name(id, 'id')}")
        if stored is None:
            raise NotFoundError(f"there is no object {id}", field="id")
        return decode(stored.data, StoreMediaReply)

    async def _picture(self, kind: MediaKind, sniffed: ContentType, content: Content) -> Picture | None:
        if kind not in {"message-image", "widget-image"}:
            return None
        if sniffed is SVG and kind == "widget-image":
            # A browser draws it from any address, as a download too; there is nothing to shrink.
            return None
        if not sniffed.image:
            raise InvalidError(f"expected a JPEG, PNG, GIF or WebP image, got {sniffed.name}", field="file")
        return await self._image_work.run(picture_from_bytes, content.data, side_px=THUMBNAIL_PX)

    async def _put(self, provider: Provider, kind: MediaKind, piece: "_Piece") -> None:
        headers = Headers(content_type=piece.stored.content_type, content_disposition=piece.content_disposition)
        try:
            new = await retry(
                lambda: provider.put_if_absent(piece.stored.key, piece.data, headers),
                backoff=BACKOFF,
                deadline_s=RETRY_S,
            )
        except MillraceError as error:
            self._count(provider, kind, error.code)
            raise
        self._count(provider, kind, "stored" if new else "duplicate")
        if new:
            self._metrics.count("millrace_storage_bytes_total", len(piece.data), provider=provider.name)

    def _count(self, provider: Provider, kind: MediaKind, outcome: str) -> None:
        self._metrics.count("millrace_storage_objects_total", provider=provider.name, kind=kind, outcome=outcome)

    async def _record(self, reply: StoreMediaReply) -> None:
        key = f"{reply.app_key}.{reply.id}"
        data = encode(reply)
        recorded = await self._records.get(key)
        if recorded is None or recorded.data != data:
            await self._records.put(key, data)
        # Said again with every upload: whoever crashed between the record and this could not say it.
        message_id = f"{reply.app_key}.{reply.kind}.{reply.id}.{reply.provider}"
        await self._bus.publish(subjects.object_stored(reply.app_key), data, message_id=message_id)


class _Piece(Struct, frozen=True, kw_only=True):
    """One object to put: where it will be, and its bytes."""

    stored: StoredObject
    data: bytes
    content_disposition: str


def _original(
    provider: Provider,
    app_key: str,
    kind: MediaKind,
    content: Content,
    sniffed: ContentType,
    picture: Picture | None,
    file_name: str,
) -> _Piece:
    key = object_key(provider.prefix, app_key, kind, content.id, sniffed.extension)
    stored = StoredObject(
        key=key,
        url=provider.url(key),
        content_type=sniffed.name,
        size_bytes=len(content.data),
        sha256=content.sha256,
        width=picture.width if picture else None,
        height=picture.height if picture else None,
    )
    return _Piece(stored=stored, data=content.data, content_disposition=disposition(sniffed, file_name))


def _thumbnail(provider: Provider, app_key: str, kind: MediaKind, id: str, picture: Picture) -> _Piece:
    small = picture.thumbnail
    variant = f"_t{THUMBNAIL_PX}{PIPELINE}"
    key = object_key(provider.prefix, app_key, kind, id, small.type.extension, variant=variant)
    stored = StoredObject(
        key=key,
        url=provider.url(key),
        content_type=small.type.name,
        size_bytes=len(small.content),
        sha256=hashlib.sha256(small.content).hexdigest(),
        width=small.width,
        height=small.height,
    )
    return _Piece(stored=stored, data=small.content, content_disposition=disposition(small.type, ""))


def _check_size(kind: MediaKind, content: Content) -> None:
    if not content.data:
        raise InvalidError("the file is empty", field="file")
    if len(content.data) > LIMIT_BYTES[kind]:
        raise TooLargeError(
            f"the file has {len(content.data)} bytes; the limit for {kind} is {LIMIT_BYTES[kind]}", field="file"
        )
