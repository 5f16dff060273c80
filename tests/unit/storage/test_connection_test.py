"""Test Connection: every step is told, in time, and what went wrong keeps later steps from guessing."""

import asyncio

import pytest

from shared.errors import DeniedError
from storage.connection_test import Check, Finding, ProbeConnectorReply, Step, run_checks


async def fine() -> Finding:
    return Finding(message="fine")


async def warned() -> Finding:
    return Finding(status="warning", message="it stays", code="AccessDenied", http_status=403, hint="Grant it.")


async def refused() -> Finding:
    raise DeniedError("not allowed")


async def silent() -> Finding:
    await asyncio.Event().wait()
    raise AssertionError("never reached")


def told(report: ProbeConnectorReply) -> list[tuple[str, str]]:
    return [(step.name, step.status) for step in report.steps]


async def test_report_is_ok_when_every_step_is() -> None:
    report = await run_checks([Check(name="fields", run=fine), Check(name="put", run=fine, needs=("fields",))])

    assert "ok" == report.status
    assert [("fields", "ok"), ("put", "ok")] == told(report)


async def test_step_tells_code_status_and_hint() -> None:
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
        deadline_s=0.1,
    )

    assert [("put", "failed"), ("put", "failed"), ("get", "skipped"), ("delete", "ok")] == told(report)
    assert "over" in report.steps[2].message
