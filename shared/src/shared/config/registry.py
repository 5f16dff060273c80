"""
The configuration of the mesh in `CONFIG`: typed, with revisions, checked when written and when read, live in
every service.

Secrets are sealed on the way in and opened on the way out, and every entry is signed (`shared.config.signed_store`).
Which kinds of configuration there are, and their defaults, stands in the services: each declares its `Kind`s.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import msgspec
import structlog
from msgspec import Struct

from shared.config.change_notifier import ChangeNotifier
from shared.config.secret import Secret
from shared.config.secret_keys import UnsignedError
from shared.config.secret_store import SecretStore
from shared.config.signed_store import SignedStore
from shared.contracts import keys, streams, subjects
from shared.contracts.alerts import AlertSender
from shared.errors import InvalidError, NotFoundError
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValue, is_deletion
from shared.messaging.message import Message
from shared.messaging.watch import watch_entries
from shared.runtime.logs import redactor
from shared.runtime.slices import Slices

log = structlog.get_logger()
T = TypeVar("T", bound=Struct)


class Kind(Struct, Generic[T], frozen=True, kw_only=True):
    """
    A kind of configuration: keys `<prefix>.<app>.<id>`, or `<prefix>.<app>[.<fixed_id>]` where an app has one.

    `type` is the Struct that a value decodes to; it forbids unknown fields. No new value gets an id of `reserved`.
    """

    prefix: str
    type: type[T]
    fixed_id: str | None = None
    reserved: frozenset[str] = frozenset()

    @property
    def keys(self) -> str:
        """The filter that matches every key of the kind."""
        return keys.config_key(self.prefix, "*", "*" if self.fixed_id is None else self.fixed_id)

    def keys_of_app(self, app_key: str) -> str:
        """The filter that matches every key of the kind of one app."""
        return keys.config_key(self.prefix, app_key, "*" if self.fixed_id is None else self.fixed_id)

    def key(self, app_key: str, id: str = "") -> str:
        """The key of a value. Raises `InvalidError` when a part is not fit for a key."""
        subjects.check_app_key(app_key)
        id = subjects.check_name(id, "id") if self.fixed_id is None else self.fixed_id
        return keys.config_key(self.prefix, app_key, id)


class ConfigEntry(Struct, Generic[T], frozen=True):
    """One value. `revision` grows with every change of the key."""

    app_key: str
    id: str
    value: T
    revision: int


def secrets_of(value: Any) -> Iterator[Secret]:
    """Every secret in a value, in the Structs inside it and in their lists: for `shared.runtime.logs.redactor`."""
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, Struct):
        for attribute in value.__struct_fields__:
            yield from secrets_of(getattr(value, attribute))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from secrets_of(item)


class View(Generic[T]):
    """
    A live copy of every entry of a kind, kept by a watch that is read anew in full every `relist_s`.

    A value that does not decode, or that the secret keys have not signed, is refused with an alert, and the last good
    one stays. It is tried again with every full read, as a missing key may have come. Reads never wait.
    """

    def __init__(self, registry: "Registry", kind: Kind[T], relist_s: float) -> None:
        self._registry = registry
        self.kind = kind
        self._relist_s = relist_s
        self._entries: dict[str, ConfigEntry[T]] = {}
        self._revisions: dict[str, int] = {}
        self.unsigned: dict[str, UnsignedError] = {}
        """Entries whose newest revision the secret keys have not signed, by key."""
        self._refused: dict[str, int] = {}
        """Revisions that are refused, by key."""
        self._notifier = ChangeNotifier()
        self._notifier.add(self._report_revision)
        self.listed = asyncio.Event()
        """Set once the first full read is done."""

    def get(self, app_key: str, id: str = "") -> ConfigEntry[T] | None:
        """The entry, or None."""
        return self._entries.get(self.kind.key(app_key, id))

    def is_erased(self, app_key: str, id: str = "") -> bool:
        """Return whether there was an entry, and there is none any more, as far as this view knows."""
        key = self.kind.key(app_key, id)
        return key in self._revisions and key not in self._entries and key not in self._refused

    def all(self) -> list[ConfigEntry[T]]:
        """Every entry of every app."""
        return list(self._entries.values())

    def of_app(self, app_key: str) -> list[ConfigEntry[T]]:
        """Every entry of one app."""
        return [entry for entry in self._entries.values() if entry.app_key == app_key]

    def on_change(self, callback: Callable[[], None]) -> None:
        """
        Call back after changes, in the event loop, without arguments; once for several that come together. The
        callback must not block or raise.
        """
        self._notifier.add(callback)

    async def wait_told(self) -> None:
        """Wait until the callbacks have seen every change so far."""
        await self._notifier.wait_called()

    async def run(self) -> None:
        """Watch until cancelled, as a task of the service."""
        await watch_entries(
            self._registry.bus,
            streams.CONFIG,
            self.kind.keys,
            self._apply_all,
            known=self._entries.keys,
            drop=self._drop,
            listed=self.listed.set,
            relist_s=self._relist_s,
        )

    async def _apply_all(self, messages: Sequence[Message]) -> None:
        for message in messages:
            await self._apply(message)

    async def _apply(self, message: Message) -> None:
        key = streams.CONFIG.key_of(message.subject)
        known = self._revisions.get(key, 0)
        if known > message.sequence or (known == message.sequence and key not in self._refused):
            return
        if is_deletion(message.headers):
            self._drop(key)
        else:
            try:
                entry = self._registry.entry(self.kind, self._registry.entries.from_message(message))
            except (InvalidError, UnsignedError) as error:
                await self._refuse(key, message.sequence, error)
            else:
                self.put(key, entry)
        self._revisions[key] = message.sequence

    def put(self, key: str, entry: ConfigEntry[T]) -> None:
        """Store an entry in the view; also called by the writer itself, so that it reads what it wrote."""
        self._revisions[key] = entry.revision
        self._refused.pop(key, None)
        self.unsigned.pop(key, None)
        self._entries[key] = entry
        self._notifier.changed()

    def _drop(self, key: str) -> None:
        self._refused.pop(key, None)
        self.unsigned.pop(key, None)
        if self._entries.pop(key, None) is not None:
            self._notifier.changed()

    def _report_revision(self) -> None:
        newest = max(self._revisions.values(), default=0)
        self._registry.bus.metrics.gauge("millrace_config_revision", newest, kind=self.kind.prefix)

    async def _refuse(self, key: str, revision: int, error: InvalidError | UnsignedError) -> None:
        told = self._refused.get(key) == revision
        self._refused[key] = revision
        if isinstance(error, UnsignedError):
            self.unsigned[key] = error
        if told:
            return
        self._registry.bus.metrics.count("millrace_config_refused_total", kind=self.kind.prefix)
        message = f"revision {revision} of {key} is refused, the last good one stays: {error.message}"
        if error.field:
            message += f" ({error.field})"
        app_key, _ = keys.parse_config_key(key)
        await self._registry.alerts.send(app_key, "config-refused", key, message)


class Registry:
    """Reads and writes configuration. `views` are made once, at start, for the kinds that a service declares."""

    def __init__(self, bus: Bus, secrets: SecretStore, *, service: str, relist_s: float) -> None:
        self.bus = bus
        self.secrets = secrets
        self.alerts = AlertSender(service, bus.alert, lambda: datetime.now(UTC))
        self._relist_s = relist_s
        self.entries = SignedStore(bus, secrets.keys)
        self._views: dict[str, View[Any]] = {}

    def view(self, kind: Kind[T]) -> View[T]:
        """The live copy of a kind. The service keeps the views of the kinds it declares."""
        view = self._views.get(kind.keys)
        if view is None:
            view = self._views[kind.keys] = View(self, kind, self._relist_s)
        return view

    def entry(self, kind: Kind[T], stored: KeyValue) -> ConfigEntry[T]:
        """
        Decode a stored value.

        Raises:
            InvalidError: It does not fit the type; names the field.
            UnsignedError: The secret keys have not signed it.
        """
        app_key, id = keys.parse_config_key(stored.key)
        value = self.secrets.decode_sealed(self.entries.verify(stored).data, kind.type)
        for secret in secrets_of(value):
            redactor.add(secret.reveal())
        return ConfigEntry(app_key, id if kind.fixed_id is None else "", value, stored.revision)

    async def get(self, kind: Kind[T], app_key: str, id: str = "") -> ConfigEntry[T]:
        """An entry, straight from the bucket. Raises `NotFoundError`, and what `entry` raises."""
        return self.entry(kind, await self._stored(kind.key(app_key, id)))

    async def _stored(self, key: str) -> KeyValue:
        stored = await self.entries.get(key)
        if stored is None:
            raise NotFoundError(f"there is no {key}")
        return stored

    async def list(self, kind: Kind[T], app_key: str | None = None) -> list[ConfigEntry[T]]:
        """Every entry, straight from the bucket. One that does not decode is left out: an alert was published."""
        entries = []
        slices = Slices()
        for stored in await self.entries.scan(kind.keys_of_app(app_key) if app_key else kind.keys):
            try:
                entries.append(self.entry(kind, stored))
            except (InvalidError, UnsignedError) as error:
                log.warning("config_decoding_failed", key=stored.key, message=error.message)
            await slices.turn()
        return entries

    async def form_over_saved(self, kind: Kind[T], app_key: str, form: dict[str, Any], id: str = "") -> T:
        """
        The values of a form over the saved ones; a secret that is left out or masked is the saved one.

        Raises:
            InvalidError: A field does not fit the type; names it.
            NotFoundError: The form is empty and nothing is saved.
        """
        try:
            saved = (await self.get(kind, app_key, id)).value
        except NotFoundError:
            if not form:
                raise
            saved = None
        shown = msgspec.json.decode(self.secrets.encode_masked(saved)) if saved is not None else {}
        value = self.secrets.from_form(shown | form, kind.type, saved)
        for secret in secrets_of(value):
            redactor.add_form(secret.reveal())
        return value

    async def put(
        self, kind: Kind[T], app_key: str, id: str, value: T, *, expect_revision: int | None = None
    ) -> ConfigEntry[T]:
        """
        Write a checked value.

        Raises:
            ConflictError: It has changed since `expect_revision`; 0 says that it must be new.
        """
        key = kind.key(app_key, id)
        data = self.secrets.encode_sealed(value)
        stored = await self.entries.put(key, data, expect_revision=expect_revision)
        entry = self.entry(kind, stored)
        if view := self._views.get(kind.keys):
            view.put(key, entry)
            await view.wait_told()
        return entry

    async def delete(self, kind: Kind[T], app_key: str, id: str = "") -> None:
        """Erase an entry, also one that does not decode. Raises `NotFoundError` when there is none."""
        stored = await self._stored(kind.key(app_key, id))
        await self.entries.delete(stored.key, expect_revision=stored.revision)
