"""
Servers of other people's protocols, as real processes on loopback, for tests only. Nothing but tests imports this file.

moto speaks S3, Kinesis, IAM and STS; Azurite speaks Azure Blob Storage. There is no fake NATS: tests run a real one.
"""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from shared.aws.roles import AwsCredentials
from shared.config.secret import Secret
from support.outgoing import aws_clients
from support.servers.listening import listening


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
            # Not `moto.server`: two calls at once make its Kinesis lose records, as that module says.
            return (sys.executable, "-m", "millrace.demo.moto_server", str(port))

        self.url = await self._stack.enter_async_context(listening(command, "/moto-api/"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def client(self, service: str, credentials: AwsCredentials | None = None) -> AsyncIterator[Any]:
        """A client of a service, for setup and checks of a test outside the code under test."""
        async with (
            aws_clients() as aws,
            aws.client(
                service, region=self.region, credentials=credentials or self.credentials, endpoint_url=self.url
            ) as client,
        ):
            yield client

    async def create_bucket(self, name: str, *, public: bool = False) -> None:
        """Create an empty bucket in `region`; objects of a `public` one need no credentials to be read."""
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
        """Create an IAM user that may do these actions on every resource. Returns its keys."""
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
        """Check keys and policies from now on, or no longer. The setup of a test comes before."""
        await self._command("reset-auth", b"0" if demanded else b"inf")

    async def reset(self) -> None:
        """Forget everything."""
        await self.demand_real_keys(False)
        await self._command("reset", b"")

    async def _command(self, what: str, body: bytes) -> None:
        async with aiohttp.ClientSession() as http, http.post(f"{self.url}/moto-api/{what}", data=body) as answer:
            answer.raise_for_status()
