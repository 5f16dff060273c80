"""
One remote is pulled by one replica: a lease in `LEASES`, which ends by itself when nobody renews it.

The bucket forgets a key after 60 s. Whoever could not renew for `LOSE_S` leaves off before that, so two never pull at a
time; where they would after all, the rows of a file still are published once, because its content is its name.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from shared.buckets import BucketStore
from shared.errors import ConflictError, MillraceError

log = structlog.get_logger()

RENEW_S = 10.0
LOSE_S = 30.0


async def with_lease(store: BucketStore, key: str, owner: str, work: Callable[[], Awaitable[None]]) -> bool:
    """
    Do the work while the lease is ours. Gives False when another has it; a lease that is lost ends the work.

    Raises:
        UnavailableError: NATS does not answer, and nothing was begun.
    """
    clock = asyncio.get_running_loop().time
    mine = owner.encode()
    try:
        revision = await store.put(key, mine, expect_revision=0)
    except ConflictError:
        found = await store.get(key)
        if found is None or found.data != mine:
            return False
        revision = found.revision
    confirmed_at = clock()
    working = asyncio.ensure_future(work())
    try:
        while not (await asyncio.wait({working}, timeout=RENEW_S))[0]:
            at = clock()
            try:
                async with asyncio.timeout(RENEW_S):
                    revision = await store.put(key, mine, expect_revision=revision)
                confirmed_at = at
            except ConflictError:
                found = await store.get(key)
                if found is None or found.data != mine:
                    log.warning("lease_lost", key=key, message="another replica has taken it")
                    return True
                revision = found.revision
            except (MillraceError, TimeoutError):
                if clock() - confirmed_at > LOSE_S:
                    log.warning("lease_lost", key=key, message="it was not renewed in time")
                    return True
        working.result()
        return True
    finally:
        while not working.done():
            working.cancel()
            await asyncio.wait({working}, timeout=0.5)
        await _give_back(store, key, revision)


async def _give_back(store: BucketStore, key: str, revision: int) -> None:
    try:
        async with asyncio.timeout(RENEW_S):
            await store.delete(key, expect_revision=revision)
    except (MillraceError, TimeoutError):
        log.info("lease_not_given_back", key=key)
