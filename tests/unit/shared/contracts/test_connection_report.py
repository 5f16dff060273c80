"""Test Connection: every step is reported in time, and a failure skips the later steps."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from shared.contracts.connection_report import Check, ConnectionReport, Finding, Step, StepStatus, run_checks
from shared.errors import DeniedError, MillraceError


async def fine() -> Finding:
    return Finding(message="fine")


async def warned() -> Finding:
    return Finding(status="warning", message="it stays", code="AccessDenied", http_status=403, hint="Grant it.")


async def refused() -> Finding:
    raise DeniedError("not allowed")


async def failed() -> Finding:
    return Finding(status="failed", message="other bytes came back")


async def silent() -> Finding:
    await asyncio.Event().wait()
    raise AssertionError("never reached")


def told(report: ConnectionReport) -> list[tuple[str, str]]:
    return [(step.name, step.status) for step in report.steps]


async def test_report_is_ok_when_every_step_is() -> None:
    report = await run_checks([Check(name="fields", run=fine), Check(name="put", run=fine, needs=("fields",))])

    assert "ok" == report.status
    assert [("fields", "ok"), ("put", "ok")] == told(report)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (("ok", "unknown", "skipped"), "ok"),
        (("ok", "warning", "unknown"), "warning"),
        (("warning", "failed", "ok"), "failed"),
    ],
)
async def test_worst_verdict_is_the_whole_ones(found: tuple[StepStatus, ...], expected: str) -> None:
    def check(verdict: StepStatus) -> Check:
        async def run() -> Finding:
            return Finding(status=verdict, message="found")

        return Check(name=verdict, run=run)

    report = await run_checks([check(verdict) for verdict in found])

    assert expected == report.status
    assert found == tuple(step.status for step in report.steps)


async def test_step_reports_code_status_and_hint() -> None:
    report = await run_checks([Check(name="delete", run=warned)])

    assert "warning" == report.status
    expected = Step(
        name="delete",
        status="warning",
        message="it stays",
        ms=report.steps[0].ms,
        code="AccessDenied",
        http_status=403,
        hint="Grant it.",
    )
    assert (expected,) == report.steps


async def test_steps_that_need_a_failed_one_are_skipped_and_the_others_run() -> None:
    report = await run_checks(
        [
            Check(name="fields", run=fine),
            Check(name="put", run=refused, needs=("fields",)),
            Check(name="get", run=fine, needs=("put",)),
            Check(name="public_url", run=fine, needs=("get",)),
            Check(name="delete", run=fine, needs=("fields",)),
        ]
    )

    assert "failed" == report.status
    statuses = ["ok", "failed", "skipped", "skipped", "ok"]
    assert statuses == [step.status for step in report.steps]
    assert ("denied", "not allowed") == (report.steps[1].code, report.steps[1].message)
    assert "put did not pass" in report.steps[2].message


@pytest.mark.timeout(5)
async def test_report_comes_within_the_deadline_when_nothing_answers() -> None:
    started = asyncio.get_running_loop().time()

    report = await run_checks(
        [Check(name="reach", run=silent), Check(name="region", run=silent), Check(name="delete", run=silent)],
        deadline_s=0.3,
    )

    assert asyncio.get_running_loop().time() - started < 1
    assert ["timeout"] * 3 == [step.code for step in report.steps]


async def test_last_step_has_time_of_its_own() -> None:
    report = await run_checks(
        [
            *[Check(name="put", run=silent)] * 2,
            Check(name="get", run=silent),
            Check(name="delete", run=fine, needs=("fields",)),
        ],
        deadline_s=0.5,
    )

    assert [("put", "failed"), ("put", "failed"), ("get", "skipped"), ("delete", "ok")] == told(report)
    assert "over" in report.steps[2].message


@pytest.mark.parametrize("run", [failed, refused, silent])
async def test_failure_of_what_is_not_needed_is_a_warning(run: Callable[[], Awaitable[Finding]]) -> None:
    report = await run_checks([Check(name="delete", run=run, worst_status="warning")], deadline_s=0.1)

    assert ("warning", "warning") == (report.status, report.steps[0].status)


async def test_error_is_explained_by_the_function_of_the_check() -> None:
    def explain(error: MillraceError) -> Finding:
        return Finding(status="failed", message=error.message, code="AccessDenied", hint="Grant it.")

    report = await run_checks([Check(name="put", run=refused, explain=explain)])

    assert ("AccessDenied", "not allowed", "Grant it.") == (
        report.steps[0].code,
        report.steps[0].message,
        report.steps[0].hint,
    )
