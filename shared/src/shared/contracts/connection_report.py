"""
Report of a Test Connection: steps in their order, each with its time, a status and a hint for a person.

The report, the order and the deadlines are here. The steps themselves are in the files of each provider and sink.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from shared.errors import InvalidError, MillraceError

DEADLINE_S: Final = 10.0
"""Time for all steps together: a person waits in front of a form."""

STEP_SHARE: Final = 0.5
"""Share of the deadline that one step may use. An endpoint that accepts and never answers is known by then."""

LAST_SHARE: Final = 0.2
"""Share that is kept for the last step, which removes what the others left."""

TIMEOUT_HINT: Final = "Check the region and the endpoint, and that a firewall lets this host reach it."
"""Hint for a step that got no answer, unless the step has a hint of its own."""

StepStatus = Literal["ok", "warning", "failed", "skipped", "unknown"]


class Finding(Struct, frozen=True, kw_only=True):
    """
    Result of one step. Holds no secret.

    `code` and `http_status` are the provider's own; `hint` says what to do. `skipped` means not tried, `unknown` means
    without a result.
    """

    message: str
    status: StepStatus = "ok"
    code: str | None = None
    http_status: int | None = None
    hint: str | None = None


def explain(error: MillraceError) -> Finding:
    """The finding of a step that raised, where the error is all that is known."""
    return Finding(status="failed", code=error.code, message=error.message)


class Check(Struct, frozen=True, kw_only=True):
    """
    One step. `run` returns its finding, and is cancelled when its time is over; `explain` makes a finding of what it
    raises.

    `needs` names the steps without which it is not tried. `timeout_hint` is the hint when its time is over. A failure
    counts as `worst_status`: what is not needed for the work itself does not fail the test.
    """

    name: str
    run: Callable[[], Awaitable[Finding]]
    needs: tuple[str, ...] = ()
    explain: Callable[[MillraceError], Finding] = explain
    timeout_hint: str = TIMEOUT_HINT
    worst_status: Literal["warning", "failed"] = "failed"


class Step(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A finding in the report. `ms` is how long the step took."""

    name: str
    status: StepStatus
    message: str
    ms: Annotated[int, Meta(ge=0)]
    code: str | None = None
    http_status: int | None = None
    hint: str | None = None


class ConnectionReport(Struct, frozen=True, kw_only=True):
    """The answer to every Test Connection: `failed` where a step failed, else `warning` where one warned, else `ok`."""

    status: Literal["ok", "warning", "failed"]
    steps: tuple[Step, ...]


class ConnectionFailedError(InvalidError):
    """A configuration is not stored, because Test Connection failed with it. `report` says at which step."""

    def __init__(self, report: ConnectionReport, *, field: str) -> None:
        failed = next(step for step in report.steps if step.status == "failed")
        hint = f" {failed.hint}" if failed.hint else ""
        super().__init__(f"Test Connection failed at {failed.name}: {failed.message}.{hint}", field=field)
        self.report = report


async def run_checks(checks: Sequence[Check], *, deadline_s: float = DEADLINE_S) -> ConnectionReport:
    """
    Run the checks in their order and report each, within `deadline_s` whatever the other side does.

    Nothing is tried twice.
    """
    clock = asyncio.get_running_loop().time
    ends_at = clock() + deadline_s
    steps: list[Step] = []
    for place, check in enumerate(checks, start=1):
        begun = clock()
        missing = [step.name for step in steps if step.status in {"failed", "skipped"} and step.name in check.needs]
        left_s = ends_at - begun - (deadline_s * LAST_SHARE if place < len(checks) else 0.0)
        if missing:
            finding = Finding(status="skipped", message=f"not tried, because {missing[0]} did not pass")
        elif left_s <= 0:
            finding = Finding(status="skipped", message=f"not tried, because {deadline_s:g} s were over")
        else:
            finding = await _find(check, min(deadline_s * STEP_SHARE, left_s))
        steps.append(_step(check.name, finding, clock() - begun))
    return ConnectionReport(status=_worst(steps), steps=tuple(steps))


async def _find(check: Check, limit_s: float) -> Finding:
    try:
        async with asyncio.timeout(limit_s):
            finding = await check.run()
    except TimeoutError:
        finding = Finding(
            status="failed",
            code="timeout",
            message=f"no answer within {limit_s:.1f} s",
            hint=check.timeout_hint,
        )
    except MillraceError as error:
        finding = check.explain(error)
    return msgspec.structs.replace(finding, status=check.worst_status) if finding.status == "failed" else finding


def _step(name: str, finding: Finding, seconds: float) -> Step:
    return Step(
        name=name,
        status=finding.status,
        message=finding.message,
        ms=round(seconds * 1000),
        code=finding.code,
        http_status=finding.http_status,
        hint=finding.hint,
    )


def _worst(steps: Sequence[Step]) -> Literal["ok", "warning", "failed"]:
    found = {step.status for step in steps}
    if "failed" in found:
        return "failed"
    return "warning" if "warning" in found else "ok"
