"""Azure Blob Storage, as Azurite speaks it."""

import base64
import email.utils
import hashlib
import hmac
import re
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlencode

import aiohttp

from shared.config.secret import Secret
from support.servers.listening import listening


class AzuriteServer:
    """
    Azure Blob Storage, emulated by Azurite on `endpoint`. An async context manager.

    Azurite comes from npm and may be absent: `installed` finds it. It is searched on the PATH, and in the folder
    `.azurite` that `npm install --prefix .azurite azurite` makes.
    """

    account_name: Final = "devstoreaccount1"
    # The key that every Azurite has, printed in its documentation.
    account_key: Final = Secret(
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    )

    def __init__(self) -> None:
        self.endpoint = ""
        self._stack = AsyncExitStack()

    @staticmethod
    def installed() -> str | None:
        """The path of its program; None where it is absent."""
        return shutil.which("azurite-blob") or shutil.which("azurite-blob", path=".azurite/node_modules/.bin")

    async def __aenter__(self) -> Self:
        program = self.installed()
        assert program is not None
        folder = self._stack.enter_context(tempfile.TemporaryDirectory())

        def command(port: int) -> Sequence[str]:
            where = ("--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", folder)
            # Azurite lags behind the version of the API that clients ask for (Azure/Azurite#2651).
            return (str(Path(program).absolute()), *where, "--skipApiVersionCheck", "--disableTelemetry", "--silent")

        url = await self._stack.enter_async_context(listening(command, "/"))
        self.endpoint = f"{url}/{self.account_name}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def create_container(self, name: str, *, public: bool = False) -> None:
        """Create an empty container; blobs of a `public` one need no credentials to be read."""
        access = {"x-ms-blob-public-access": "blob"} if public else {}
        await self._request("PUT", name, {"restype": "container"}, access)

    def sas_token(self, container: str, *, permissions: str) -> Secret:
        """A shared access signature of a container (service SAS, version 2020-12-06), as the portal makes one."""
        ends = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        version, resource = "2020-12-06", f"/blob/{self.account_name}/{container}"
        fields = (permissions, "", ends, resource, "", "", "", version, "c", "", "", "", "", "", "", "")
        key = base64.b64decode(self.account_key.reveal())
        digest = hmac.new(key, "\n".join(fields).encode(), hashlib.sha256).digest()
        query = {"sp": permissions, "se": ends, "sv": version, "sr": "c", "sig": base64.b64encode(digest).decode()}
        return Secret(urlencode(query))

    async def names(self, container: str) -> list[str]:
        """The names of a container's blobs."""
        listed = await self._request("GET", container, {"comp": "list", "restype": "container"})
        return re.findall(r"<Blob><Name>([^<]*)</Name>", listed)

    async def allow_origins(self, *origins: str) -> None:
        """Set the origins whose pages may read public blobs. At the start there is none."""
        rule = (
            f"<CorsRule><AllowedOrigins>{','.join(origins)}</AllowedOrigins><AllowedMethods>GET</AllowedMethods>"
            "<AllowedHeaders/><ExposedHeaders/><MaxAgeInSeconds>60</MaxAgeInSeconds></CorsRule>"
        )
        body = f"<StorageServiceProperties><Cors>{rule if origins else ''}</Cors></StorageServiceProperties>"
        await self._request("PUT", "", {"comp": "properties", "restype": "service"}, body=body)

    async def _request(
        self, method: str, path: str, query: dict[str, str], more: dict[str, str] | None = None, *, body: str = ""
    ) -> str:
        # Signed by hand (Shared Key, Blob service): no client of ours does what is behind an operator's console.
        date = email.utils.formatdate(usegmt=True)
        sent = {"x-ms-date": date, "x-ms-version": "2021-08-06"} | (more or {})
        headers = "".join(f"{name}:{sent[name]}\n" for name in sorted(sent))
        resource = f"/{self.account_name}/{self.account_name}/{path}"
        asked = "".join(f"\n{name}:{query[name]}" for name in sorted(query))
        length = str(len(body)) if body else ""
        to_sign = f"{method}\n\n\n{length}" + "\n" * 9 + f"{headers}{resource}{asked}"
        key = base64.b64decode(self.account_key.reveal())
        signature = base64.b64encode(hmac.new(key, to_sign.encode(), hashlib.sha256).digest()).decode()
        sent["Authorization"] = f"SharedKey {self.account_name}:{signature}"
        async with (
            aiohttp.ClientSession(skip_auto_headers=["Content-Type"]) as http,
            http.request(
                method, f"{self.endpoint}/{path}", params=query, headers=sent, data=body.encode() or None
            ) as answer,
        ):
            answer.raise_for_status()
            return await answer.text()
