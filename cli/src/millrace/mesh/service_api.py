"""HTTP calls of a verb to the services: their URLs, the token, and their errors as exceptions again."""

import argparse
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from millrace.machine.secret_files import read_secret
from millrace.mesh.folder import MeshFolder, check_token
from shared.contracts.services import SERVICE_NAMES
from shared.errors import KINDS, InvalidError, MillraceError, UnavailableError

CONNECT_S = 10.0
TIMEOUT_S = 90.0
"""The longest calls: a new role is tried for a minute (`PUT` of an export), and a flush waits for as long."""


def add_url_argument(parser: argparse.ArgumentParser) -> None:
    """Declare `--url`, for services that are not those of a local mesh."""
    parser.add_argument(
        "--url",
        action="append",
        default=[],
        metavar="SERVICE=URL",
        help="where a service is, such as hooks=https://hooks.example; may be repeated",
    )


def parse_urls(given: list[str]) -> dict[str, str]:
    """The values of `--url`. Raises `InvalidError`."""
    urls: dict[str, str] = {}
    for text in given:
        name, _, url = text.partition("=")
        if name not in SERVICE_NAMES or not url.startswith(("http://", "https://")):
            expected = f"expected SERVICE=http(s)://…, SERVICE being one of {', '.join(SERVICE_NAMES)}; got {text!r}"
            raise InvalidError(expected, field="--url")
        urls[name] = url.rstrip("/")
    return urls


def find_urls(given: list[str], data: Path) -> dict[str, str]:
    """URLs of the services: those of `--url`, or else the local mesh. Raises `NotFoundError` where none runs."""
    return parse_urls(given) or MeshFolder(data).addresses().services


def read_token(file: Path | None, data: Path) -> str:
    """The bearer token: of the given file, or else the local mesh's own. Raises `InvalidError`."""
    path = file or MeshFolder(data).admin_token_file
    return check_token(read_secret(path), path)


class ServiceApi:
    """The services' HTTP interface with one token. Made by `open_api`."""

    def __init__(self, http: aiohttp.ClientSession, urls: Mapping[str, str]) -> None:
        self._http = http
        self.urls = urls

    async def call(
        self,
        service: str,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Any:
        """
        Call a service and return its decoded answer; `body` is sent as JSON, or as it is where it is bytes or a form.

        Raises:
            MillraceError: The error that the service answered, of the kind it named.
            UnavailableError: It cannot be reached.
        """
        try:
            url = self.urls[service] + path
        except KeyError:
            raise InvalidError(f"where is {service}? give --url {service}=http://…", field="--url") from None
        data = body if body is None or isinstance(body, bytes | aiohttp.FormData) else msgspec.json.encode(body)
        # A form brings its own content type, with its boundary.
        headers = None if isinstance(body, aiohttp.FormData) else {"Content-Type": content_type}
        try:
            async with self._http.request(method, url, data=data, params=query, headers=headers) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UnavailableError(f"{service} cannot be reached at {url}: {error or type(error).__name__}") from None
        if answer.status >= 400:
            raise _error_of(service, answer.status, content)
        return msgspec.json.decode(content or b"null")


def _error_of(service: str, status: int, content: bytes) -> MillraceError:
    try:
        error = msgspec.json.decode(content)["error"]
        return KINDS.get(error["code"], MillraceError)(error["message"], field=error.get("field"))
    except (msgspec.DecodeError, KeyError, TypeError):
        return UnavailableError(f"{service} answered {status} and no reason")


@asynccontextmanager
async def open_api(urls: Mapping[str, str], token: str) -> AsyncIterator[ServiceApi]:
    """Open the API for the block."""
    async with aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {token}"},
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S, sock_connect=CONNECT_S),
    ) as http:
        yield ServiceApi(http, urls)
