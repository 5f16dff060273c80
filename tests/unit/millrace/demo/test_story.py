"""How the steps of the demo are run and told."""

import pytest

from millrace.demo.story import StepResult, Story, StoryError, equal
from millrace.terminal.console import Teller
from shared.errors import InvalidError


@pytest.fixture
def story() -> Story:
    return Story(Teller())


async def test_step_stands_in_the_table_with_its_outcome(story: Story) -> None:
    async def work() -> StepResult:
        return equal("2 rows", "2 rows")

    await story.step("count rows", work)

    (step,) = story.steps
    assert ("count rows", True, "2 rows", "2 rows") == (step.name, step.ok, step.expected, step.got)
    assert story.ok


async def test_story_goes_on_after_a_step_with_another_outcome_and_is_not_ok(story: Story) -> None:
    async def work() -> StepResult:
        return equal("2 rows", "1 row")

    await story.step("count rows", work)

    assert not story.ok


@pytest.mark.parametrize(
    ("error", "got"),
    [
        (InvalidError("expected a region", field="region"), "region: expected a region"),
        (KeyError("url"), "KeyError: 'url'"),
        (TimeoutError(), "not done within 60 s"),
    ],
)
async def test_story_ends_with_a_row_that_says_why_when_a_step_breaks(
    story: Story, error: Exception, got: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def work() -> StepResult:
        raise error

    with pytest.raises(StoryError, match="upload"):
        await story.step("upload", work)

    assert got == story.steps[0].got
    assert not story.ok
    assert f"upload: {got}" in capsys.readouterr().out
