"""
Test Connection: what an export does with its store, done once with a small object, step by step, with what a person can
do about a failure. Nothing is tried twice. What a step asks is told by the sink's own file.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Annotated, Any, Final, Literal, Protocol

from msgspec import Meta, Struct

from shared.aws_codes import HINTS
from shared.errors import ConflictError, MillraceError
from shared.store_errors import store_code

DEADLINE_S: Final = 10.0
"""For all steps together: a person waits in front of a form."""
STEP_S: Final = 4.0
"""For one step: a store that accepts and says nothing is known by then."""
CONTENT: Final = b"Millrace tests the connection; this object may be deleted.\n"

StepName = Literal["open", "put", "get", "delete"]
Verdict = Literal["ok", "warning", "failed", "skipped"]

KIND_HINTS: Final = {
    "credentials": "Check the access key and the secret key.",
    "denied": "The policy of the key, or of the bucket, has to allow this in the directory.",
    "not_found": "Check the name of the bucket.",
    "unavailable": "Check the region and the endpoint, and that a firewall lets this host reach it.",
}
"""What a person can do about a kind of error whose code says nothing better."""


class Probed(Protocol):
    """A sink that can be tried out. Each method raises the `MillraceError` that a run would meet."""

    async def put(self, key: str, data: bytes) -> None:
        """Create an object."""
        ...

    async def read(self, key: str, size_bytes: int) -> bytes | None:
        """The object of a key, or None."""
        ...

    async def delete(self, key: str) -> None:
        """Remove an object."""
        ...


class Step(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one step found out; holds no secret. `code` is the provider's own where it gave one, `ms` the time taken."""

    name: StepName
    status: Verdict
    message: str
    ms: Annotated[int, Meta(ge=0)]
    code: str | None = None
    hint: str | None = None


class ProbeConnector(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    Ask for a Test Connection by NATS, of a saved export over which `config` is laid.

    A secret that `config` leaves out, or masks with `***`, is the saved one.
    """

    app_key: str
    id: str
    config: dict[str, Any] = {}


class ProbeConnectorReply(Struct, frozen=True, kw_only=True):
    """The report: `failed` where a step failed, else `warning` where one warned, else `ok`."""

    status: Literal["ok", "warning", "failed"]
    steps: tuple[Step, ...]


async def probe_store(
    open_sink: Callable[[], AbstractAsyncContextManager[Probed]], key: str, *, deadline_s: float = DEADLINE_S
) -> ProbeConnectorReply:
    """Write, read and remove the object `key`, within `deadline_s` whatever the store does."""
    report = _Report(deadline_s)
    async with AsyncExitStack() as stack:
        opened: list[Probed] = []

        async def open_it() -> str:
            opened.append(await stack.enter_async_context(open_sink()))
            return "the form can be right"

        async def put() -> str:
            await opened[0].put(key, CONTENT)
            return f"wrote {key}"

        async def get() -> str:
            if await opened[0].read(key, len(CONTENT)) != CONTENT:
                raise ConflictError(f"{key} is not what was written")
            return "read it back"

        async def delete() -> str:
            await opened[0].delete(key)
            return "deleted it"

        await report.step("open", open_it)
        await report.step("put", put)
        await report.step("get", get)
        # Exports delete nothing: a key that may not is a good key, and the probe stays.
        await report.step("delete", delete, needs="put", at_worst="warning")
    return report.reply()


class _Report:
    def __init__(self, deadline_s: float) -> None:
        self._ends_at = asyncio.get_running_loop().time() + deadline_s
        self._deadline_s = deadline_s
        self._steps: list[Step] = []

    async def step(
        self,
        name: StepName,
        run: Callable[[], Awaitable[str]],
        *,
        needs: StepName | None = None,
        at_worst: Literal["warning", "failed"] = "failed",
    ) -> None:
        """Run a step, unless one before it (or the one it needs) did not pass."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        missing = [step.name for step in self._steps if step.status != "ok" and needs in {None, step.name}]
        limit_s = min(STEP_S, self._ends_at - begun)
        if missing:
            self._add(name, begun, "skipped", f"not tried, because {missing[0]} did not pass")
            return
        if limit_s <= 0:
            self._add(name, begun, "skipped", f"not tried, because {self._deadline_s:g} s were over")
            return
        try:
            async with asyncio.timeout(limit_s):
                message = await run()
        except TimeoutError:
            late = f"no answer within {limit_s:.1f} s"
            self._add(name, begun, at_worst, late, code="timeout", hint=KIND_HINTS["unavailable"])
        except MillraceError as error:
            code = store_code(error)
            hint = HINTS.get(code or "") or KIND_HINTS.get(error.code)
            self._add(name, begun, at_worst, error.message, code=code or error.code, hint=hint)
        else:
            self._add(name, begun, "ok", message)

    def _add(
        self,
        name: StepName,
        begun: float,
        status: Verdict,
        message: str,
        *,
        code: str | None = None,
        hint: str | None = None,
    ) -> None:
        ms = round((asyncio.get_running_loop().time() - begun) * 1000)
        self._steps.append(Step(name=name, status=status, message=message, ms=ms, code=code, hint=hint))

    def reply(self) -> ProbeConnectorReply:
        """The verdict over all steps."""
        verdicts = {step.status for step in self._steps}
        worst: Literal["ok", "warning", "failed"] = "ok"
        if "failed" in verdicts:
            worst = "failed"
        elif "warning" in verdicts:
            worst = "warning"
        return ProbeConnectorReply(status=worst, steps=tuple(self._steps))
