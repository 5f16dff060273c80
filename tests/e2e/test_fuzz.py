"""
A mesh under damaged requests, messages and files: it lives, leaks nothing, and its neighbours notice nothing.

The suite runs a few rounds of a fixed seed. CONTRIBUTING.md says how to run an hour.
"""

import asyncio
from pathlib import Path
from time import monotonic

import pytest

from support.fuzz.campaign import Campaign
from support.servers.mesh import RunningMesh

ROUNDS = 6
DEADLINE_S = 300.0


@pytest.mark.timeout(0)
async def test_damaged_input_stops_nothing_and_costs_nobody_else(
    mesh: RunningMesh, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    seconds: float = request.config.getoption("--fuzz-seconds")
    seed: int = request.config.getoption("--fuzz-seed")
    report = Path(request.config.getoption("--fuzz-report") or tmp_path / "report.txt")
    ends = monotonic() + seconds
    async with asyncio.timeout(seconds + DEADLINE_S), Campaign(mesh, seed) as campaign:
        number = 0
        while number < ROUNDS or monotonic() < ends:
            await campaign.round(number)
            number += 1
            campaign.watch.write_report(report, f"seed {seed}, {number} rounds")
        await campaign.settle()
        campaign.watch.write_report(report, f"seed {seed}, {number} rounds, the end")

    assert [] == campaign.watch.findings
    assert 3 * number == campaign.watch.counts["neighbour's events"]
