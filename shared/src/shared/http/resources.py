"""
Configuration over HTTP: the same four routes for every kind, so that hooks, users and connectors behave alike.

`PUT` checks, and says what would change (`?dry_run=true`) or changes it; a secret that is left out, or sent as `***`,
stays. `GET` shows `***` for every secret. A service checks more than the type by `check`.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar, cast

import msgspec
from aiohttp import web
from msgspec import Struct

from shared.config.registry import ConfigEntry, Kind, secrets_of
from shared.config.secret_keys import UnsignedError
from shared.config.secret_store import SecretStore
from shared.contracts import subjects
from shared.errors import InvalidError, NotFoundError
from shared.http.routes import Query, Route
from shared.http.server import Call
from shared.runtime.logs import redactor
from shared.runtime.slices import Slices

T = TypeVar("T", bound=Struct)

_NEXT_WORD: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

Check = Callable[[Call[Any], T, T | None], Awaitable[T]]
"""
Gets the new value and the old one. Returns the value to store, or raises `InvalidError` or `ConflictError`.
"""


Settle = Callable[[Call[Any], T | None, T | None], Awaitable[None]]
"""Gets the value that was stored before, where it could be read, and the one that is now; None for none."""


class ConfigChange(Struct, frozen=True, kw_only=True):
    """
    Effect of a `PUT`, or of a dry run. `fields` are the names whose values differ; secrets are named, never shown.
    """

    change: Literal["created", "updated", "unchanged"]
    fields: tuple[str, ...]
    revision: int
    dry_run: bool = False


class ConfigItem(Struct, frozen=True, kw_only=True):
    """One entry of a list, secrets masked."""

    id: str
    revision: int
    value: dict[str, Any]


class ConfigList(Struct, frozen=True, kw_only=True):
    """Every entry of an app."""

    items: tuple[ConfigItem, ...]


class Remains(Struct, frozen=True):
    """The answer to a deletion: its type, and the function that makes it."""

    type: Any
    find: Callable[[Call[Any]], Awaitable[Any]]


class Shown(Struct, frozen=True):
    """
    A field that is shown beside the value, and that `PUT` passes over, so that what was read may be sent back.

    `type` is the value's with this field; `find` gives what to show by id.
    """

    type: Any
    field: str
    find: Callable[[Call[Any], Sequence[str]], Awaitable[Mapping[str, Any]]]


def resource_routes(
    kind: Kind[T],
    path: str,
    name: str,
    *,
    check: Check[T] | None = None,
    settle: Settle[T] | None = None,
    remains: Remains | None = None,
    shown: Shown | None = None,
    query: Mapping[str, Query] | None = None,
    also: Mapping[int, Any] | None = None,
) -> tuple[Route, ...]:
    """
    The routes of one kind. `path` is the collection's, such as `/v1/apps/{app_key}/hooks`, or, for a kind with a fixed
    id, the one thing's. `name` is the word for it in summaries. Without `remains` a deletion is answered with 204.
    `settle` is called after a value was stored or deleted. `shown` is shown with each value. `query` and `also` are
    further ones of `PUT`.
    """

    async def put(call: Call[Any]) -> ConfigChange:
        id = _id(kind, call)
        subjects.check_new_app_key(call.app_key)
        if id in kind.reserved:
            raise InvalidError(f"expected another id: {id!r} has a meaning of its own here", field="id")
        old = await _find(kind, call, id)
        value = await _read(kind, call, old, ignored=shown.field if shown else None)
        if check is not None:
            value = await check(call, value, old.value if old else None)
        fields = SecretStore.changed_fields(old.value if old else None, value)
        change: Literal["created", "updated", "unchanged"] = "created" if old is None else "updated"
        if old is not None and not fields:
            return ConfigChange(change="unchanged", fields=(), revision=old.revision, dry_run=call.dry_run)
        revision = old.revision if old else 0
        if not call.dry_run:
            stored = await call.registry.put(kind, call.app_key, id, value, expect_revision=revision)
            revision = stored.revision
            if settle is not None:
                await settle(call, old.value if old else None, value)
        return ConfigChange(change=change, fields=fields, revision=revision, dry_run=call.dry_run)

    async def get(call: Call[Any]) -> web.Response:
        entry = await call.registry.get(kind, call.app_key, _id(kind, call))
        found = await shown.find(call, [entry.id]) if shown else {}
        body = _with_shown(SecretStore.encode_masked(entry.value), shown, found.get(entry.id))
        return web.Response(body=body, content_type="application/json", headers={"ETag": f'"{entry.revision}"'})

    async def list_all(call: Call[Any]) -> ConfigList:
        entries = await call.registry.list(kind, call.app_key)
        found = await shown.find(call, [entry.id for entry in entries]) if shown else {}
        items = []
        slices = Slices()
        for entry in sorted(entries, key=lambda entry: entry.id):
            # JSON already, so it is not decoded for the answer.
            masked = _with_shown(SecretStore.encode_masked(entry.value), shown, found.get(entry.id))
            value = cast(dict[str, Any], msgspec.Raw(masked))
            items.append(ConfigItem(id=entry.id, revision=entry.revision, value=value))
            await slices.turn()
        return ConfigList(items=tuple(items))

    async def delete(call: Call[Any]) -> Any:
        id = _id(kind, call)
        old = await _find_readable(kind, call, id) if settle is not None else None
        await call.registry.delete(kind, call.app_key, id)
        if settle is not None:
            await settle(call, old.value if old else None, None)
        return None if remains is None else await remains.find(call)

    one = path if kind.fixed_id is not None else f"{path}/{{id}}"
    dry_run = {"dry_run": Query("Only say what would change", bool, False)}
    routes = (
        Route(
            "PUT",
            one,
            put,
            f"Create or change {name}",
            body=kind.type,
            reads_body=True,
            reply=ConfigChange,
            query=dry_run | dict(query or {}),
            also=also or {},
        ),
        Route("GET", one, get, f"Show {name}; secrets are masked", reply=shown.type if shown else kind.type),
        Route("DELETE", one, delete, f"Delete {name}", status=204)
        if remains is None
        else Route("DELETE", one, delete, f"Delete {name}, and tell what remains", reply=remains.type),
    )
    if kind.fixed_id is not None:
        return routes
    return (*routes, Route("GET", path, list_all, f"List every {name.split()[-1]} of the app", reply=ConfigList))


def _with_shown(body: bytes, shown: Shown | None, found: Any) -> bytes:
    """The JSON of a value, with what is shown beside it."""
    if shown is None or found is None:
        return body
    return body[:-1] + b',"%s":%s}' % (shown.field.encode(), msgspec.json.encode(found))


def _check_names(raw: dict[str, Any], kind: type[Any]) -> None:
    """Raise `InvalidError` for a field that is written as other systems write it, naming ours."""
    names = {field.encode_name for field in msgspec.structs.fields(kind)}
    for name in raw:
        ours = _NEXT_WORD.sub("_", name).replace("-", "_").lower()
        if name not in names and ours in names:
            raise InvalidError(f"Object contains unknown field `{name}`; expected `{ours}`", field=name)


def _id(kind: Kind[Any], call: Call[Any]) -> str:
    return "" if kind.fixed_id is not None else subjects.check_name(call.path["id"], "id")


async def _find(kind: Kind[T], call: Call[Any], id: str) -> ConfigEntry[T] | None:
    try:
        return await call.registry.get(kind, call.app_key, id)
    except NotFoundError:
        return None


async def _find_readable(kind: Kind[T], call: Call[Any], id: str) -> ConfigEntry[T] | None:
    """The entry; None also for one that does not decode, which can be deleted all the same."""
    try:
        return await _find(kind, call, id)
    except (InvalidError, UnsignedError):
        return None


async def read_form(kind: Kind[T], call: Call[Any], id: str = "") -> T:
    """The body as a value of the kind, masked or absent secrets taken from the saved one. For `…/test` routes too."""
    return await _read(kind, call, await _find(kind, call, id))


async def _read(kind: Kind[T], call: Call[Any], old: ConfigEntry[T] | None, *, ignored: str | None = None) -> T:
    try:
        raw = msgspec.json.decode(await call.read_json())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidError(f"expected JSON: {error}") from None
    except RecursionError:
        raise InvalidError("expected JSON of fewer levels") from None
    if not isinstance(raw, dict):
        raise InvalidError("expected a JSON object")
    raw.pop(ignored, None)
    _check_names(raw, kind.type)
    value = call.registry.secrets.from_form(raw, kind.type, old.value if old else None)
    for secret in secrets_of(value):
        redactor.add_form(secret.reveal())
    return value
