"""The report of Test Connection: order, verdicts, deadline."""

import asyncio
from collections.abc import Awaitable, Callable

from hooks.connection_test import Check, Finding, Verdict, run_checks
from shared.errors import CredentialsError, DeniedError, MillraceError


def explain(error: MillraceError) -> Finding:
    return Finding(status="failed", message=error.message, code=error.code)


def find(status: Verdict) -> Callable[[], Awaitable[Finding]]:
    async def run() -> Finding:
        return Finding(status=status, message="found")

    return run


def refuse(error: MillraceError) -> Callable[[], Awaitable[Finding]]:
    async def run() -> Finding:
        raise error

    return run


async def hang() -> Finding:
    await asyncio.Event().wait()
    raise AssertionError


def check(name: str, run: Callable[[], Awaitable[Finding]], *, may_be_denied: bool = False) -> Check:
    return Check(name=name, run=run, explain=explain, may_be_denied=may_be_denied)


async def test_the_worst_verdict_is_the_whole_ones() -> None:
    fine = await run_checks([check("a", find("ok")), check("b", find("unknown")), check("c", find("skipped"))])
    warned = await run_checks([check("a", find("ok")), check("b", find("warning"))])

    assert ("ok", "warning") == (fine.status, warned.status)


async def test_what_follows_a_failure_is_not_tried() -> None:
    report = await run_checks([check("a", refuse(CredentialsError("revoked"))), check("b", find("ok"))])

    assert "failed" == report.status
    assert [("a", "failed", "credentials"), ("b", "skipped", None)] == [
        (s.name, s.status, s.code) for s in report.steps
    ]


async def test_not_being_allowed_to_look_is_no_failure_where_it_may_be_so() -> None:
    denied = refuse(DeniedError("not allowed"))

    allowed = await run_checks([check("a", denied, may_be_denied=True)])
    needed = await run_checks([check("a", denied)])

    assert ("ok", "unknown") == (allowed.status, allowed.steps[0].status)
    assert ("failed", "failed") == (needed.status, needed.steps[0].status)


async def test_silence_ends_with_the_deadline() -> None:
    report = await run_checks([check("a", hang)], deadline_s=0.01)

    assert ("failed", "timeout") == (report.steps[0].status, report.steps[0].code)
