"""Steps of the demo: their run and their rows."""

import pytest

from millrace.demo.demo_run import DemoRun, StepError, StepResult, equal
from millrace.terminal.console import Console
from shared.errors import InvalidError


@pytest.fixture
def demo_run() -> DemoRun:
    return DemoRun(Console())


async def test_step_has_a_row_with_its_outcome(demo_run: DemoRun) -> None:
    async def work() -> StepResult:
        return equal("2 rows", "2 rows")

    await demo_run.step("count rows", work)

    (step,) = demo_run.steps
    assert ("count rows", True, "2 rows", "2 rows") == (step.name, step.ok, step.expected, step.got)
    assert demo_run.ok


async def test_demo_continues_after_a_step_with_another_outcome_and_is_not_ok(demo_run: DemoRun) -> None:
    async def work() -> StepResult:
        return equal("2 rows", "1 row")

    await demo_run.step("count rows", work)

    assert not demo_run.ok


@pytest.mark.parametrize(
    ("error", "got"),
    [
        (InvalidError("expected a region", field="region"), "region: expected a region"),
        (KeyError("url"), "KeyError: 'url'"),
        (TimeoutError(), "not done within 60 s"),
    ],
)
async def test_demo_ends_with_a_row_of_the_reason_when_a_step_raises(
    demo_run: DemoRun, error: Exception, got: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def work() -> StepResult:
        raise error

    with pytest.raises(StepError, match="upload"):
        await demo_run.step("upload", work)

    assert got == demo_run.steps[0].got
    assert not demo_run.ok
    assert f"upload: {got}" in capsys.readouterr().out
