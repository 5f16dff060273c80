"""The outgoing connections of a process, for tests of the parts that use them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from shared.aws.clients import AwsClients
from shared.objects.config import StoreConfig
from shared.objects.store import ObjectStore
from shared.outgoing.door import Outgoing
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
async def open_store(config: StoreConfig, *arguments: Any, **options: Any) -> AsyncIterator[ObjectStore]:
    """The store of a config, by connections of its own."""
    async with open_outgoing() as outgoing, config.open(outgoing, *arguments, **options) as store:
        yield store
