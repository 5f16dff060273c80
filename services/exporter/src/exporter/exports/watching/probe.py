"""Probe of a destination that nothing is delivered to: its customer learns that it is broken before the first event."""

import asyncio
from typing import Final

from exporter.destinations.connection_test import CONTENT
from exporter.pipeline.ports import Destination
from shared.errors import ConflictError, UnavailableError

PROBE_EVERY_S: Final = 900.0
PROBE_S: Final = 30.0
PROBE_NAME: Final = ".millrace-probe"


async def probe(destination: Destination, directory: str) -> None:
    """
    Create the small object `.millrace-probe` in the directory, unless it is there.

    A store answers that it is there to one who may write, and refuses all others; so the probe needs no further right,
    writes once, and makes no versions.

    Raises:
        MillraceError: What a run would get.
    """
    try:
        async with asyncio.timeout(PROBE_S):
            await destination.put(f"{directory}/{PROBE_NAME}" if directory else PROBE_NAME, CONTENT, "text/plain")
    except ConflictError:
        return
    except TimeoutError:
        raise UnavailableError(f"the store did not answer within {PROBE_S:.0f} s") from None
