"""Test Connection of a new role, on a clock of the test's own."""

from collections.abc import Callable

import pytest

from exporter.destinations.patience import PATIENCE_S, probe_patiently
from shared.contracts.connection_report import ConnectionReport, Step, StepStatus


def report(code: str | None = None, *, failed: str = "", role: bool = True) -> ConnectionReport:
    """A report whose step `failed` was refused with a code."""

    def status(name: str) -> StepStatus:
        return "failed" if name == failed else "ok"

    names = ("open", "role", "put") if role else ("open", "put")
    steps = tuple(
        Step(name=name, status=status(name), message="", ms=0, code=code if name == failed else None) for name in names
    )
    return ConnectionReport(status="failed" if failed else "ok", steps=steps)


class Played:
    """A clock, and probes that answer with the reports of a script by its time."""

    def __init__(self, answer: Callable[[float], ConnectionReport]) -> None:
        self.now = 1000.0
        self.probes: list[float] = []
        self._answer = answer

    async def probe(self) -> ConnectionReport:
        self.probes.append(self.now - 1000)
        return self._answer(self.now - 1000)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    async def run(self) -> ConnectionReport:
        return await probe_patiently(self.probe, clock=lambda: self.now, sleep=self.sleep)


@pytest.mark.parametrize("failed", ["role", "put"])
async def test_new_role_is_tried_until_aws_knows_it(failed: str) -> None:
    played = Played(lambda at: report("AccessDenied", failed=failed) if at < 20 else report())

    assert "ok" == (await played.run()).status
    assert 20 <= played.probes[-1] <= 25


async def test_role_that_stays_denied_is_told_after_a_minute() -> None:
    played = Played(lambda _: report("AccessDenied", failed="role"))

    assert "failed" == (await played.run()).status
    assert PATIENCE_S - 5 < played.probes[-1] <= PATIENCE_S
    assert len(played.probes) <= 15


@pytest.mark.parametrize(
    "told",
    [
        report(),
        report("NoSuchBucket", failed="put"),
        report("ValidationError", failed="role"),
        report("AccessDenied", failed="put", role=False),
    ],
)
async def test_anything_else_is_told_at_once(told: ConnectionReport) -> None:
    played = Played(lambda _: told)

    assert told == await played.run()
    assert [0] == played.probes
