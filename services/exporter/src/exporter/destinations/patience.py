"""
Test Connection of a role that AWS may not know everywhere yet.

IAM is eventually consistent: for some seconds a new role is denied what it may do (IAM user guide, Troubleshoot IAM,
"Changes that I make are not always immediately visible").
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from shared.aws.codes import DENIED_KEYS
from shared.contracts.connection_report import ConnectionReport

PATIENCE_S: Final = 60.0
FIRST_DELAY_S: Final = 1.0
LONGEST_DELAY_S: Final = 5.0


async def probe_patiently(
    probe: Callable[[], Awaitable[ConnectionReport]],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> ConnectionReport:
    """
    The report of a probe, which is made again for `PATIENCE_S` while a role is denied. Anything else is told at once.

    Args:
        clock: Monotonic, in seconds.
    """
    ends_at = clock() + PATIENCE_S
    delay_s = FIRST_DELAY_S
    while True:
        report = await probe()
        if not _denies_role(report) or clock() + delay_s > ends_at:
            return report
        await sleep(delay_s)
        delay_s = min(2 * delay_s, LONGEST_DELAY_S)


def _denies_role(report: ConnectionReport) -> bool:
    steps = {step.name: step for step in report.steps}
    return "role" in steps and any(
        steps[name].status == "failed" and steps[name].code in DENIED_KEYS for name in ("role", "put") if name in steps
    )
