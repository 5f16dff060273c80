"""
Test Connection: the steps in their order, each with its time, a verdict, and what a person can do about it.

Holds the report, the order and the deadlines. What a step asks is told by the sink's own file.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from hooks.triggers import StreamName
from shared.errors import DeniedError, MillraceError

DEADLINE_S: Final = 10.0
"""For all steps together: a person waits in front of a form."""
STEP_S: Final = 5.0
"""For one step: an endpoint that accepts and says nothing is known by then."""

Verdict = Literal["ok", "warning", "failed", "skipped", "unknown"]


class Finding(Struct, frozen=True, kw_only=True):
    """What one step found out. Holds no secret. `code` and `http_status` are the provider's own, `hint` what to do."""

    message: str
    status: Verdict = "ok"
    code: str | None = None
    http_status: int | None = None
    hint: str | None = None


class Check(Struct, frozen=True, kw_only=True):
    """
    One step. `run` gives its finding, or raises what the provider said; `explain` makes a finding of that.

    Not being allowed to ask does not fail a test where `may_be_denied`: a key that may write only is a good key.
    """

    name: str
    run: Callable[[], Awaitable[Finding]]
    explain: Callable[[MillraceError], Finding]
    may_be_denied: bool = False


class Step(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A finding in the report. `ms` is how long the step took."""

    name: str
    status: Verdict
    message: str
    ms: Annotated[int, Meta(ge=0)]
    code: str | None = None
    http_status: int | None = None
    hint: str | None = None


class ProbeConnector(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Ask for a Test Connection by NATS. What `config` leaves out, a secret it masks with `***`, is the saved one's.

    With `stream_name` the stream is looked at as well.
    """

    app_key: str
    kind: Literal["kinesis"] = "kinesis"
    config: dict[str, Any] = {}
    stream_name: StreamName | None = None


class ProbeConnectorReply(Struct, frozen=True, kw_only=True):
    """The report: `failed` where a step failed, else `warning` where one warned, else `ok`."""

    status: Literal["ok", "warning", "failed"]
    steps: tuple[Step, ...]


async def run_checks(checks: Sequence[Check], *, deadline_s: float = DEADLINE_S) -> ProbeConnectorReply:
    """Run the checks in their order, each once, within `deadline_s` whatever the other side does."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + deadline_s
    steps: list[Step] = []
    for check in checks:
        begun = loop.time()
        if any(step.status == "failed" for step in steps):
            finding = Finding(status="skipped", message=f"not tried, because {steps[-1].name} did not pass")
        else:
            finding = await _find(check, min(STEP_S, ends_at - begun))
        steps.append(
            Step(
                name=check.name,
                status=finding.status,
                message=finding.message,
                ms=round((loop.time() - begun) * 1000),
                code=finding.code,
                http_status=finding.http_status,
                hint=finding.hint,
            )
        )
    verdicts = {step.status for step in steps}
    status: Literal["ok", "warning", "failed"] = "ok"
    if "failed" in verdicts:
        status = "failed"
    elif "warning" in verdicts:
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
            message=f"no answer within {max(0.0, limit_s):.1f} s",
            hint="Check the region and the endpoint, and that a firewall lets this host reach it.",
        )
    except DeniedError as error:
        finding = check.explain(error)
        if not check.may_be_denied:
            return finding
        return Finding(
            status="unknown",
            message="the key may not look at the stream, which sending does not need",
            code=finding.code,
            http_status=finding.http_status,
        )
    except MillraceError as error:
        return check.explain(error)
