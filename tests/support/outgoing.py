"""The outgoing connections of a process, for tests of the parts that use them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from shared.aws.clients import AwsClients
from shared.outgoing.door import Outgoing
from shared.outgoing.http_client import HttpClient
from shared.runtime.settings import Settings


def open_outgoing(**settings: Any) -> Outgoing:
    """Connections to open, which reach servers of the test unless `allow_private_endpoints` says otherwise."""
    return Outgoing(Settings(**{"allow_private_endpoints": True} | settings))


@asynccontextmanager
async def aws_clients(**arguments: Any) -> AsyncIterator[AwsClients]:
    """`AwsClients` with connections of their own."""
    async with open_outgoing() as outgoing, AwsClients(outgoing, **arguments) as clients:
        yield clients


@asynccontextmanager
async def guarded_http(**settings: Any) -> AsyncIterator[HttpClient]:
    """The client for customers' hosts, with connections of its own."""
    async with open_outgoing(**settings) as outgoing:
        yield outgoing.guarded
