"""
Rows of profile files into the profile store, and which users it does not know yet.
"""

from collections.abc import Sequence

from shared.errors import BusyError, ConflictError
from shared.messages import ProfileBatch
from shared.profiles import Profiles


async def apply_batch(profiles: Profiles, batch: ProfileBatch) -> None:
    """
    Merge every row. Rows of one user keep their order; doing it twice changes nothing.

    Raises:
        BusyError, UnavailableError: Do it again.
        TooLargeError: Some profiles would be too large; all others are written.
    """
    try:
        await profiles.merge_all(batch.app_key, batch.rows)
    except ConflictError:
        raise BusyError("profiles are being changed by others") from None


async def unknown_users(profiles: Profiles, app_key: str, ext_ids: Sequence[str]) -> set[str]:
    """Those that have no profile. Raises `UnavailableError`."""
    return await profiles.unknown(app_key, ext_ids)
