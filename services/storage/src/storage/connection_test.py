"""
Test Connection: the steps in their order, each with its time, a verdict, and what a person can do about it.

Holds the report, the order and the deadline. What a step does is told by the provider's own file.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from shared.errors import MillraceError

DEADLINE_S: Final = 10.0
"""For all steps together: a person waits in front of a form."""

STEP_SHARE: Final = 0.5
"""The part of the deadline that one step may use: an endpoint that accepts and says nothing is known by then."""

CLEANING_SHARE: Final = 0.2
"""The part that is kept back for the last step, which removes what the others left."""

StepName = Literal["fields", "reach", "region", "put", "get", "public_url", "delete"]
Status = Literal["ok", "warning", "failed", "skipped"]


class Finding(Struct, frozen=True, kw_only=True):
    """
    What one step found out. Holds no secret.

    `code` and `http_status` are the provider's own, `hint` what to do. `skipped` means that it could not be told.
    """

    message: str
    status: Status = "ok"
    code: str | None = None
    http_status: int | None = None
    hint: str | None = None


class Check(Struct, frozen=True, kw_only=True):
    """One step: `run` gives its finding, and is cancelled when its time is over. `needs` names steps that must pass."""

    name: StepName
    run: Callable[[], Awaitable[Finding]]
    needs: tuple[StepName, ...] = ()


class Step(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A finding in the report. `ms` is how long the step took."""

    name: StepName
    status: Status
    message: str
    ms: Annotated[int, Meta(ge=0)]
    code: str | None = None
    http_status: int | None = None
    hint: str | None = None


class ProbeConnector(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Ask for a Test Connection by NATS, of the saved connector or of the values in `config`.

    A secret that `config` leaves out, or masks with `***`, is the saved one.
    """

    app_key: str
    kind: Literal["amazon-storage"] = "amazon-storage"
    config: dict[str, Any] | None = None


class ProbeConnectorReply(Struct, frozen=True, kw_only=True):
    """The report: `failed` where a step failed, else `warning` where one warned, else `ok`."""

    status: Literal["ok", "warning", "failed"]
    steps: tuple[Step, ...]


async def run_checks(
    checks: Sequence[Check],
    *,
    deadline_s: float = DEADLINE_S,
    clock: Callable[[], float] | None = None,
) -> ProbeConnectorReply:
    """
    Run the checks in their order and report each, within `deadline_s` whatever the other side does.

    Nothing is tried twice.
    """
    clock = clock or asyncio.get_running_loop().time
    ends_at = clock() + deadline_s
    steps: list[Step] = []
    for place, check in enumerate(checks, start=1):
        bad = [step.name for step in steps if step.status in {"failed", "skipped"} and step.name in check.needs]
        started = clock()
        left_s = ends_at - started - (deadline_s * CLEANING_SHARE if place < len(checks) else 0.0)
        if bad:
            finding = Finding(status="skipped", message=f"not tried, because {bad[0]} did not pass")
        elif left_s <= 0:
            finding = Finding(status="skipped", message=f"not tried, because {deadline_s:g} s were over")
        else:
            finding = await _find(check, min(deadline_s * STEP_SHARE, left_s))
        steps.append(_step(check.name, finding, clock() - started))
    found = {step.status for step in steps}
    status: Literal["ok", "warning", "failed"] = "ok"
    if "failed" in found:
        status = "failed"
    elif "warning" in found:
        status = "warning"
    return ProbeConnectorReply(status=status, steps=tuple(steps))


async def _find(check: Check, limit_s: float) -> Finding:
    try:
        async with asyncio.timeout(limit_s):
            return await check.run()
    except TimeoutError:
        return Finding(
            status="failed",
            code="timeout",
            message=f"no answer within {limit_s:.1f} s",
            hint="Check the endpoint, and that a firewall lets this host reach it.",
        )
    except MillraceError as error:
        return Finding(status="failed", code=error.code, message=error.message)


def _step(name: StepName, finding: Finding, seconds: float) -> Step:
    return Step(
        name=name,
        status=finding.status,
        message=finding.message,
        ms=round(seconds * 1000),
        code=finding.code,
        http_status=finding.http_status,
        hint=finding.hint,
    )
