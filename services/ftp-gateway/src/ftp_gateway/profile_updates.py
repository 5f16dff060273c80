"""
Rows of profile files into the profile store, and which users it does not know yet.
"""

import asyncio
from collections.abc import Sequence

from shared.errors import BusyError, ConflictError
from shared.messages import ProfileBatch, ProfileRow
from shared.profiles import Profiles

AT_ONCE = 64
"""Reads and writes of the store in flight, for one batch."""


async def apply_batch(profiles: Profiles, batch: ProfileBatch) -> None:
    """
    Merge every row. Rows of one user keep their order; doing it twice changes nothing.

    Raises:
        BusyError, UnavailableError: Do it again.
    """
    by_user: dict[str, list[ProfileRow]] = {}
    for row in batch.rows:
        by_user.setdefault(row.ext_id, []).append(row)
    slots = asyncio.Semaphore(AT_ONCE)

    async def merge(rows: list[ProfileRow]) -> None:
        async with slots:
            for row in rows:
                await profiles.merge(
                    batch.app_key,
                    row.ext_id,
                    email=row.email,
                    device_token=row.device_token,
                    attributes=row.attributes,
                )

    failures = [
        failure
        for failure in await asyncio.gather(*(merge(rows) for rows in by_user.values()), return_exceptions=True)
        if failure is not None
    ]
    # All are waited for first: a merge that went on behind a repetition could bring back an older value.
    for failure in failures:
        raise BusyError("a profile is being changed by others") if isinstance(failure, ConflictError) else failure


async def unknown_users(profiles: Profiles, app_key: str, ext_ids: Sequence[str]) -> set[str]:
    """Those that have no profile. Raises `UnavailableError`."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def is_unknown(ext_id: str) -> bool:
        async with slots:
            return await profiles.get(app_key, ext_id) is None

    asked = sorted(set(ext_ids))
    found = await asyncio.gather(*(is_unknown(ext_id) for ext_id in asked))
    return {ext_id for ext_id, unknown in zip(asked, found, strict=True) if unknown}
