"""
A configuration file as the resources that it describes, each with its service, its path and its lines.

`millrace.verbs.apply` sends them; the services check the values.
"""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from millrace.configuration.toml_positions import Path as KeyPath
from millrace.configuration.toml_positions import dotted, key_lines, line_of, path_from_dotted
from shared.contracts import keys
from shared.contracts.services import SERVICES
from shared.errors import InvalidError, MillraceError

_KINDS = {kind: service.name for service in SERVICES for kind in service.kinds}
APP_SERVICE = _KINDS[keys.APP_KIND]
"""The service that has the app itself."""
CONNECTORS = {
    connector: service for kind, service in _KINDS.items() if (connector := keys.connector_of_kind(kind)) is not None
}
"""Connector: the service that has it."""
COLLECTIONS = {table: service for kind, service in _KINDS.items() if (table := keys.table_of_kind(kind)) is not None}
"""Table below an app: the service that has it. Its name in paths has hyphens for underscores."""
_FIRST = ("", "connectors", "ftp_users", "remotes")
ORDER = (*_FIRST, *(table for table in COLLECTIONS if table not in _FIRST))
"""Referred to first: the app itself, then its connectors. Sources of files come before receivers of events."""

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
UNKNOWN_FIELD = re.compile(r"Object contains unknown field `([^`]+)`")


class Resource(Struct, frozen=True, kw_only=True):
    """One thing to put. `keys` is where it stands in the file."""

    keys: tuple[str | int, ...]
    service: str
    path: str
    body: dict[str, Any]

    @property
    def name(self) -> str:
        return dotted(self.keys)


class ApplyFile:
    """The file's resources in the order in which they are to be put, and its lines for error messages."""

    def __init__(self, file: Path, lines: dict[KeyPath, int], resources: list[Resource]) -> None:
        self.file = file
        self.resources = resources
        self._lines = lines

    def error(self, keys: KeyPath, message: str) -> InvalidError:
        """An error at `keys`: `demo.toml:14: apps.shop.hooks.purchases.stream_nam: unknown field`."""
        return _error(self.file, self._lines, keys, message)

    def refusal(self, resource: Resource, error: MillraceError) -> InvalidError:
        """A service's refusal, at the line of the field that it names, or else of the resource."""
        message, field = error.message, path_from_dotted(error.field or "")
        keys: KeyPath = (*resource.keys, *field)
        if unknown := UNKNOWN_FIELD.fullmatch(message):
            message = "unknown field"
            # The service names what the field is in, or the field itself.
            if field[-1:] != (unknown[1],):
                keys = (*keys, unknown[1])
        return self.error(keys, message)


def read_apply_file(file: Path, value_of: Callable[[str], str | None]) -> ApplyFile:
    """
    Read the file, with `${NAME}` in texts replaced by `value_of(NAME)`.

    Raises:
        InvalidError: The file cannot be read, is no TOML, has tables that mean nothing, or names an unknown variable;
            says `file:line`.
    """
    try:
        text = file.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except OSError as error:
        raise InvalidError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidError(f"{file} is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidError(_located(file, str(error))) from None
    lines = key_lines(text)

    def refuse(keys: KeyPath, message: str) -> InvalidError:
        return _error(file, lines, keys, message)

    for key in document:
        if key != "apps":
            raise refuse((key,), "unknown table; everything stands below [apps.<app>]")
    resources = [
        resource
        for app, table in _tables(document, ("apps",), refuse).items()
        for resource in _of_app(app, table, ("apps", app) in lines, refuse)
    ]
    filled = [
        Resource(keys=one.keys, service=one.service, path=one.path, body=_filled(one.body, one.keys, value_of, refuse))
        for one in sorted(resources, key=_rank)
    ]
    return ApplyFile(file, lines, filled)


Refuse = Callable[[KeyPath, str], InvalidError]


def _error(file: Path, lines: dict[KeyPath, int], keys: KeyPath, message: str) -> InvalidError:
    return InvalidError(f"{file}:{line_of(lines, keys)}: {dotted(keys)}: {message}")


def _located(file: Path, message: str) -> str:
    """Return tomllib's message with its line in front, as all other errors have it."""
    found = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    return f"{file}:{found[1]}:{found[2]}: {message[: found.start()]}" if found else f"{file}: {message}"


def _rank(resource: Resource) -> int:
    return ORDER.index(str(resource.keys[2]) if len(resource.keys) > 2 else "")


def _tables(table: dict[str, Any], keys: KeyPath, refuse: Refuse) -> dict[str, dict[str, Any]]:
    """The tables below the last of `keys`. Anything else there is refused."""
    inner = table.get(str(keys[-1]), {})
    if not isinstance(inner, dict):
        raise refuse(keys, "expected a table")
    for name, value in inner.items():
        if not isinstance(value, dict):
            raise refuse((*keys, name), "expected a table")
    return inner


def _of_app(app: str, table: dict[str, Any], is_written: bool, refuse: Refuse) -> list[Resource]:
    keys: KeyPath = ("apps", app)
    root = f"/v1/apps/{app}"
    own = {name: value for name, value in table.items() if name not in ("connectors", *COLLECTIONS)}
    # An app whose table is only implied by those below it is not described here, so it is left alone.
    found = [Resource(keys=keys, service=APP_SERVICE, path=root, body=own)] if is_written or own else []
    for kind, body in _tables(table, (*keys, "connectors"), refuse).items():
        if kind not in CONNECTORS:
            raise refuse((*keys, "connectors", kind), f"unknown connector; expected {' or '.join(CONNECTORS)}")
        path = f"{root}/connectors/{kind}"
        found.append(Resource(keys=(*keys, "connectors", kind), service=CONNECTORS[kind], path=path, body=body))
    for collection, service in COLLECTIONS.items():
        for name, body in _tables(table, (*keys, collection), refuse).items():
            path = f"{root}/{collection.replace('_', '-')}/{name}"
            found.append(Resource(keys=(*keys, collection, name), service=service, path=path, body=body))
    return found


def _filled(value: Any, keys: KeyPath, value_of: Callable[[str], str | None], refuse: Refuse) -> Any:
    if isinstance(value, dict):
        return {name: _filled(inner, (*keys, name), value_of, refuse) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, (*keys, index), value_of, refuse) for index, inner in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replacement(match: re.Match[str]) -> str:
        found = value_of(match[1])
        if found is None:
            raise refuse(keys, f"{match[0]} is not set; give --set {match[1]}=… or the environment variable")
        return found

    return VARIABLE.sub(replacement, value)
