"""
Servers of other people's protocols, as real processes on loopback, for tests only. Nothing but tests imports this file.

moto speaks S3, Kinesis, IAM and STS; Azurite speaks Azure Blob Storage. There is no fake NATS: tests run a real one.
"""

import asyncio
import base64
import email.utils
import hashlib
import hmac
import re
import shutil
import socket
import sys
import tempfile
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from shared.aws.clients import AwsClients
from shared.aws.roles import AwsCredentials
from shared.config.secret import Secret

START_S: Final = 60.0
"""How long a server may take until it answers: moto imports for seconds, longer on a busy machine."""


class MotoServer:
    """
    AWS as moto plays it, on `url`. An async context manager.

    It takes any keys; `demand_real_keys` makes it check them, and policies, as AWS does.
    """

    region: Final = "eu-west-1"
    credentials: Final = AwsCredentials(access_key_id="testing", secret_access_key=Secret("testing-secret"))

    def __init__(self) -> None:
        self.url = ""
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        def command(port: int) -> Sequence[str]:
            # Not `moto.server`: two calls at once make its Kinesis lose records, as that module tells.
            return (sys.executable, "-m", "millrace.demo.moto_server", str(port))

        self.url = await self._stack.enter_async_context(_listening(command, "/moto-api/"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def client(self, service: str, credentials: AwsCredentials | None = None) -> AsyncIterator[Any]:
        """A client of a service, for what a test prepares or checks behind the back of the code under test."""
        async with (
            AwsClients() as aws,
            aws.client(
                service, region=self.region, credentials=credentials or self.credentials, endpoint_url=self.url
            ) as client,
        ):
            yield client

    async def create_bucket(self, name: str, *, public: bool = False) -> None:
        """An empty bucket in `region`, whose objects everybody may read where it is `public`."""
        # By hand, since making a client takes longer than most tests.
        region = f"<LocationConstraint>{self.region}</LocationConstraint>"
        body = f"<CreateBucketConfiguration>{region}</CreateBucketConfiguration>"
        allowed = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{name}/*"}
        async with aiohttp.ClientSession(self.url, raise_for_status=True) as http:
            async with http.put(f"/{name}", data=body):
                pass
            if public:
                policy = {"Version": "2012-10-17", "Statement": [allowed]}
                async with http.put(f"/{name}?policy", json=policy):
                    pass

    async def create_stream(self, name: str, *, shards: int = 1) -> None:
        """A Kinesis stream in `region`, ready to be written to."""
        async with self.client("kinesis") as kinesis:
            await kinesis.create_stream(StreamName=name, ShardCount=shards)
            await kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 0.05})

    async def create_user(self, name: str, *, actions: Sequence[str] = ()) -> AwsCredentials:
        """Keys of a new IAM user who may do these actions on everything."""
        async with self.client("iam") as iam:
            await iam.create_user(UserName=name)
            if actions:
                quoted = ",".join(f'"{action}"' for action in actions)
                statement = f'{{"Effect":"Allow","Action":[{quoted}],"Resource":"*"}}'
                policy = f'{{"Version":"2012-10-17","Statement":[{statement}]}}'
                await iam.put_user_policy(UserName=name, PolicyName="may", PolicyDocument=policy)
            key = (await iam.create_access_key(UserName=name))["AccessKey"]
        return AwsCredentials(access_key_id=key["AccessKeyId"], secret_access_key=Secret(key["SecretAccessKey"]))

    async def demand_real_keys(self, demanded: bool = True) -> None:
        """Check keys and policies from now on, or again none. What a test prepares comes before."""
        await self._tell("reset-auth", b"0" if demanded else b"inf")

    async def reset(self) -> None:
        """Forget everything."""
        await self.demand_real_keys(False)
        await self._tell("reset", b"")

    async def _tell(self, what: str, body: bytes) -> None:
        async with aiohttp.ClientSession() as http, http.post(f"{self.url}/moto-api/{what}", data=body) as answer:
            answer.raise_for_status()


class AzuriteServer:
    """
    Azure Blob Storage as Azurite plays it, on `endpoint`. An async context manager.

    Azurite comes from npm and may be absent: `installed` tells. It is looked for on the PATH, and in the folder
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
        """Where its program is."""
        return shutil.which("azurite-blob") or shutil.which("azurite-blob", path=".azurite/node_modules/.bin")

    async def __aenter__(self) -> Self:
        program = self.installed()
        assert program is not None
        folder = self._stack.enter_context(tempfile.TemporaryDirectory())

        def command(port: int) -> Sequence[str]:
            where = ("--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", folder)
            # Azurite lags behind the version of the API that clients ask for (Azure/Azurite#2651).
            return (str(Path(program).absolute()), *where, "--skipApiVersionCheck", "--disableTelemetry", "--silent")

        url = await self._stack.enter_async_context(_listening(command, "/"))
        self.endpoint = f"{url}/{self.account_name}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def create_container(self, name: str, *, public: bool = False) -> None:
        """An empty container, whose blobs everybody may read where it is `public`."""
        access = {"x-ms-blob-public-access": "blob"} if public else {}
        await self._tell("PUT", name, {"restype": "container"}, access)

    async def names(self, container: str) -> list[str]:
        """The names of a container's blobs."""
        listed = await self._tell("GET", container, {"comp": "list", "restype": "container"})
        return re.findall(r"<Blob><Name>([^<]*)</Name>", listed)

    async def allow_origins(self, *origins: str) -> None:
        """The origins of pages that may read what is public; from the start, and without one, none may."""
        rule = (
            f"<CorsRule><AllowedOrigins>{','.join(origins)}</AllowedOrigins><AllowedMethods>GET</AllowedMethods>"
            "<AllowedHeaders/><ExposedHeaders/><MaxAgeInSeconds>60</MaxAgeInSeconds></CorsRule>"
        )
        body = f"<StorageServiceProperties><Cors>{rule if origins else ''}</Cors></StorageServiceProperties>"
        await self._tell("PUT", "", {"comp": "properties", "restype": "service"}, body=body)

    async def _tell(
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


@asynccontextmanager
async def _listening(command: Callable[[int], Sequence[str]], path: str) -> AsyncIterator[str]:
    """
    Run a server until the block is left, and give its URL once it answers.

    Neither moto nor Azurite tells which port it took when asked for any, so a free one is picked here, and another one
    when somebody was faster.
    """
    said = ""
    for _ in range(3):
        port = _free_port()
        url = f"http://127.0.0.1:{port}"
        with tempfile.TemporaryFile() as log:
            process = await asyncio.create_subprocess_exec(*command(port), stdin=DEVNULL, stdout=log, stderr=STDOUT)
            try:
                async with asyncio.timeout(START_S):
                    up = await _answers(process, url + path)
                if up:
                    yield url
                    return
            finally:
                await _stop(process)
                log.seek(0)
                said = log.read()[-2000:].decode(errors="replace")
    raise RuntimeError(f"the server ended while it started: {said}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def _answers(process: Process, url: str) -> bool:
    async with aiohttp.ClientSession() as http:
        while process.returncode is None:
            try:
                async with http.get(url):
                    return True
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
    return False


async def _stop(process: Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(5):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
