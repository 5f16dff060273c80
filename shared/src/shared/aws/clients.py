"""
AWS sessions and clients, and temporary keys by AssumeRole.

Configuration: static keys, or a role with an external id, for which the base keys need `sts:AssumeRole`. The services
that use the clients state which further permissions the keys need.

Implementation: one aiobotocore session serves every client with static keys, because a session costs 80 ms and its
memory. There is one client per credentials, service and endpoint; the least recently used one is closed first. A role
needs a session of its own. All sessions of a process share the SDK's data: megabytes of JSON, whose parsing holds every
thread for 30 ms and more. So they are read when `AwsClients` is entered, before a service is ready. The SDK retries
nothing: the runtime owns retry.

Considerations: S3's client would follow a bucket into its real region (`S3RegionRedirector`), so the redirect is turned
off. It would hide a wrong region, and never end at an endpoint that redirects every request. Needs aiobotocore 3.10:
before it, concurrent first use leaks sessions (aio-libs/aiobotocore#1695).

One file, because a call, its client and the role whose keys it renews share one table.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import aiohttp
import structlog

# botocore brings no types.
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from shared.aws.codes import DENIED_KEYS, ENDED_KEYS, REVOKED_AFTER_S
from shared.aws.endpoints import is_aws
from shared.aws.errors import AWS_ERRORS, aws_code, aws_error
from shared.aws.roles import AwsCredentials, AwsRole, CredentialProvider, TemporaryKeys
from shared.aws.sdk_internals import (
    check_internals,
    disable_s3_habits,
    drop_keys,
    frozen_keys,
    keys_end_within,
    renew_keys,
)
from shared.aws.sdk_session import CONNECT_S, READ_S, client_config, new_session
from shared.aws.signing import json_error, signed_headers
from shared.errors import InvalidError
from shared.outgoing.door import Outgoing
from shared.outgoing.http_client import HttpClient, read_answer

log = structlog.get_logger()
T = TypeVar("T")

TIMEOUT: Final = aiohttp.ClientTimeout(sock_connect=CONNECT_S, sock_read=READ_S)
ROLE_S: Final = 3600
"""Lifetime of temporary keys: the longest that a chained role may ask for (STS API reference, AssumeRole)."""


class _LazyAwaitable:
    """
    Awaitable that begins when it is awaited. When a call is cancelled, obstore drops what its provider of keys has
    returned, and Python would complain of a coroutine that was never awaited.
    """

    def __init__(self, begin: CredentialProvider) -> None:
        self._begin = begin

    def __await__(self) -> Generator[Any, Any, TemporaryKeys]:
        return self._begin().__await__()


class _Slot:
    """A client, or the entry for it while it is made. `users` counts the blocks that hold it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.context: AbstractAsyncContextManager[Any] | None = None
        self.client: Any = None
        self.users = 0


class AwsClients:
    """
    The AWS clients of one process. An async context manager: leaving it closes them.

    Args:
        outgoing: The connections of the process.
        services: The services whose models are read at once; that of another one is read when it is first needed.
        most: Clients that are kept open while they are unused.
        sts_endpoint_url: Where roles are assumed, when not at AWS.
    """

    def __init__(
        self,
        outgoing: Outgoing,
        services: Iterable[str] = (),
        *,
        most: int = 64,
        sts_endpoint_url: str | None = None,
    ) -> None:
        check_internals()
        self._outgoing = outgoing
        self._services = tuple(services)
        self._most = most
        self._sts_endpoint_url = sts_endpoint_url
        self._session = new_session()
        self._slots: OrderedDict[tuple[object, ...], _Slot] = OrderedDict()

    async def __aenter__(self) -> Self:
        for service in self._services:
            await asyncio.to_thread(self._session.warm_up_loader_caches, service)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._slots:
            _, slot = self._slots.popitem()
            await _close(slot)

    @asynccontextmanager
    async def client(
        self,
        service: str,
        *,
        region: str,
        credentials: AwsCredentials | AwsRole | None,
        endpoint_url: str | None = None,
        trusted: bool = False,
    ) -> AsyncIterator[Any]:
        """
        The client of a service, shared by all callers who ask for the same. It stays open at least while the block
        runs.

        `credentials` None is the identity of this process, from its environment or its machine. `trusted` tells that
        the operator names the endpoint, and no customer.

        Raises:
            MillraceError: It cannot be made, for example because there is no such region.
        """
        key = (service, region, credentials, endpoint_url, trusted)
        slot = self._slots.setdefault(key, _Slot())
        self._slots.move_to_end(key)
        slot.users += 1
        try:
            async with slot.lock:
                if slot.context is None:
                    http = self._outgoing.trusted if trusted else self._http_for(service, endpoint_url)
                    await self._make(slot, service, region, credentials, endpoint_url, http)
            yield slot.client
        finally:
            slot.users -= 1
            await self._close_unused()

    async def _make(
        self,
        slot: _Slot,
        service: str,
        region: str,
        credentials: AwsCredentials | AwsRole | None,
        endpoint_url: str | None,
        http: HttpClient,
    ) -> None:
        session, keys = self._session, {}
        if isinstance(credentials, AwsRole):
            session = self._role_session(credentials, region)
        elif credentials is not None:
            keys = {
                "aws_access_key_id": credentials.access_key_id,
                "aws_secret_access_key": credentials.secret_access_key.reveal(),
                "aws_session_token": credentials.session_token.reveal() or None,
            }
        context = session.create_client(
            service, region_name=region, endpoint_url=endpoint_url, config=client_config(endpoint_url, http), **keys
        )
        try:
            slot.client = await context.__aenter__()
        except AWS_ERRORS as error:
            raise aws_error(error) from error
        except ValueError as error:
            raise InvalidError(str(error), field="endpoint_url") from None
        slot.context = context
        if service == "s3":
            disable_s3_habits(slot.client)

    async def _close_unused(self) -> None:
        unused = [key for key, slot in self._slots.items() if slot.users == 0]
        empty = [key for key in unused if self._slots[key].context is None]
        surplus = unused[: max(0, len(unused) - self._most)]
        # Taken out all at once, so that no caller gets one of them while another is being closed.
        for slot in [self._slots.pop(key) for key in {*empty, *surplus}]:
            await _close(slot)

    def _role_session(self, role: AwsRole, region: str) -> Any:
        async def refresh() -> dict[str, str]:
            keys = await self.assume(role, region=region)
            return {
                "access_key": keys["access_key_id"],
                "secret_key": keys["secret_access_key"],
                "token": keys["token"],
                "expiry_time": keys["expires_at"].isoformat(),
            }

        session = new_session()
        # A test on a real STS API holds this.
        renew_keys(session, refresh)
        return session

    async def assume(self, role: AwsRole, *, region: str) -> TemporaryKeys:
        """Temporary keys of a role, asked for now; an empty external id is not sent. Raises `AWS_ERRORS`."""
        sts_client = self.client(
            "sts", region=region, credentials=role.base, endpoint_url=self._sts_endpoint_url, trusted=True
        )
        external_id = {"ExternalId": role.external_id} if role.external_id else {}
        async with sts_client as sts:
            answer = await sts.assume_role(
                RoleArn=role.role_arn, RoleSessionName="millrace", DurationSeconds=ROLE_S, **external_id
            )
        keys = answer["Credentials"]
        return {
            "access_key_id": keys["AccessKeyId"],
            "secret_access_key": keys["SecretAccessKey"],
            "token": keys["SessionToken"],
            # obstore takes the standard library's UTC and no other.
            "expires_at": keys["Expiration"].astimezone(UTC),
        }

    async def own_account(self, *, region: str) -> str:
        """
        The account of this process's own identity, which assumes the roles of customers.

        Raises:
            MillraceError: It has no identity, or STS does not answer.
        """
        sts_client = self.client(
            "sts", region=region, credentials=None, endpoint_url=self._sts_endpoint_url, trusted=True
        )
        try:
            async with sts_client as sts:
                answer = await sts.get_caller_identity()
        except AWS_ERRORS as error:
            raise aws_error(error) from error
        return str(answer["Account"])

    async def post_json(
        self,
        service: str,
        target: str,
        body: bytes,
        *,
        region: str,
        credentials: AwsCredentials | AwsRole | None,
        endpoint_url: str | None = None,
    ) -> bytes:
        """
        One call of a JSON API with a body that is encoded already, and its answer as it came. Tries nothing twice but
        a call that was refused because a role's keys ended early: it stored nothing, and goes again with new keys.

        Raises:
            MillraceError: AWS refused, or was not reached.
        """
        async with self.client(service, region=region, credentials=credentials, endpoint_url=endpoint_url) as client:
            url = f"{client.meta.endpoint_url.rstrip('/')}/"
            http = self._http_for(service, endpoint_url)

            async def post() -> bytes:
                # A test with a role on a real STS API holds this.
                keys = await frozen_keys(client)
                headers = signed_headers(keys, service=service, region=region, url=url, target=target, body=body)
                async with http.request("POST", url, data=body, headers=headers, timeout=TIMEOUT) as answer:
                    content = await read_answer(answer)
                    if answer.status != 200:
                        raise json_error(target.rpartition(".")[2], answer.status, answer.headers, content)
                    return content

            try:
                return await _with_lasting_keys(client, credentials, post)
            except AWS_ERRORS as error:
                raise aws_error(error) from error

    async def call(
        self,
        service: str,
        operation: str,
        arguments: Mapping[str, Any],
        *,
        region: str,
        credentials: AwsCredentials | AwsRole | None,
        endpoint_url: str | None = None,
    ) -> dict[str, Any]:
        """The answer of the SDK to one operation, tried again as `post_json` does. Raises `AWS_ERRORS`."""
        async with self.client(service, region=region, credentials=credentials, endpoint_url=endpoint_url) as client:

            async def ask() -> dict[str, Any]:
                answer: dict[str, Any] = await getattr(client, operation)(**arguments)
                return answer

            return await _with_lasting_keys(client, credentials, ask)

    def _http_for(self, service: str, endpoint_url: str | None) -> HttpClient:
        """The client for an endpoint. One of AWS may be private: an interface endpoint of a VPC has such addresses."""
        if endpoint_url is None or is_aws(endpoint_url, service):
            return self._outgoing.trusted
        return self._outgoing.guarded

    def credential_provider(self, role: AwsRole, *, region: str) -> CredentialProvider:
        """
        Return a provider of temporary keys for obstore, which calls it again before `expires_at`.

        Awaiting its result raises a `MillraceError` when the keys cannot be had.
        """

        async def provide() -> TemporaryKeys:
            try:
                return await self.assume(role, region=region)
            except AWS_ERRORS as error:
                raise aws_error(error) from error

        return lambda: _LazyAwaitable(provide)


async def _with_lasting_keys(
    client: Any, credentials: AwsCredentials | AwsRole | None, call: Callable[[], Awaitable[T]]
) -> T:
    """
    Call, and once more where AWS refuses the keys of a role before their own time says so, because the session was
    revoked or the role made anew. All calls that ran with the refused keys have the same new ones.
    """
    if not isinstance(credentials, AwsRole):
        return await call()
    keys = await frozen_keys(client)
    try:
        return await call()
    except ClientError as error:
        code = aws_code(error)
        revoked = code in DENIED_KEYS and keys_end_within(client, ROLE_S - REVOKED_AFTER_S)
        if code not in ENDED_KEYS and not revoked:
            raise
        log.info("role_keys_dropped", role_arn=credentials.role_arn, code=code)
        drop_keys(client, keys)
    return await call()


async def _close(slot: _Slot) -> None:
    if slot.context is not None:
        await slot.context.__aexit__(None, None, None)
