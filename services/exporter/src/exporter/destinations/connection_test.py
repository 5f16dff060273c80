"""
Test Connection of a destination: an export's operations, once each, on a small object, with a hint for each failure.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Final, Protocol

from shared.aws.codes import HINTS
from shared.contracts.connection_report import DEADLINE_S, Check, ConnectionReport, Finding, run_checks
from shared.errors import ConflictError, MillraceError
from shared.objects.errors import AZURE_HINTS, store_code

CONTENT: Final = b"Millrace tests the connection; this object may be deleted.\n"

KIND_HINTS: Final = {
    "credentials": "Check the keys.",
    "denied": "The policy of the key, or of the bucket, has to allow this in the directory.",
    "not_found": "Check the name of the bucket or container.",
    "unavailable": "Check the region and the endpoint, and that a firewall lets this host reach it.",
}
"""Hints by kind of error, for errors whose code has no hint of its own."""


ALONE_HINT: Final = "Let nobody else write into the directory: an object of another writer could be lost."


class ProbedDestination(Protocol):
    """A destination as Test Connection uses it. Each method raises the `MillraceError` that a run would get."""

    @property
    def knows_conditions(self) -> bool:
        """False once the store has said that it knows no condition of a put."""
        ...

    async def put(self, key: str, data: bytes, content_type: str) -> str:
        """Create an object."""
        ...

    async def read(self, key: str, size_bytes: int) -> bytes | None:
        """Read an object, or return None when there is none of this size."""
        ...

    async def delete(self, key: str) -> None:
        """Remove an object."""
        ...


async def probe_store(
    open_destination: Callable[[], AbstractAsyncContextManager[ProbedDestination]],
    key: str,
    *,
    before: Sequence[Check] = (),
    deletes: bool = True,
    deadline_s: float = DEADLINE_S,
) -> ConnectionReport:
    """
    Write, read and remove the object `key`. Ends within `deadline_s`, even when the store does not answer.

    Args:
        before: Steps before the object is written, which need `open`.
        deletes: Whether a step tells that it may be removed. Else it is removed where that is allowed, and a later test
            finds it where it is not.
    """
    async with AsyncExitStack() as stack:
        opened: list[ProbedDestination] = []

        async def open_it() -> Finding:
            opened.append(await stack.enter_async_context(open_destination()))
            return Finding(message="the form can be right")

        async def put() -> Finding:
            try:
                await opened[0].put(key, CONTENT, "text/plain")
            except ConflictError:
                if deletes:
                    raise
                return Finding(message=f"may write; {key} is there from a test before")
            return await _written(opened[0], key)

        async def get() -> Finding:
            if await opened[0].read(key, len(CONTENT)) != CONTENT:
                raise ConflictError(f"{key} is not what was written")
            if deletes:
                return Finding(message="read it back")
            try:
                await opened[0].delete(key)
            except MillraceError:
                return Finding(message=f"read it back; {key} stays, since the right to delete is not needed")
            return Finding(message="read it back and deleted it")

        async def delete() -> Finding:
            await opened[0].delete(key)
            return Finding(message="deleted it")

        # Exports delete nothing, so a key without that right is good enough; the probe object then stays.
        delete_check = Check(name="delete", run=delete, explain=_explain, needs=("put",), worst_status="warning")
        needs = ("open", *(check.name for check in before if check.worst_status == "failed"))
        checks = (
            Check(name="open", run=open_it, explain=_explain),
            *before,
            Check(name="put", run=put, explain=_explain, needs=needs),
            Check(name="get", run=get, explain=_explain, needs=("open", "put")),
            *((delete_check,) if deletes else ()),
        )
        return await run_checks(checks, deadline_s=deadline_s)


def kept_probe_of(encryption: str) -> str:
    """The end of the name of an object that stays: one for each encryption, and for the content that is expected."""
    return hashlib.sha256(CONTENT + encryption.encode()).hexdigest()[:8]


async def _written(destination: ProbedDestination, key: str) -> Finding:
    """The finding of an object that was written: whether the store keeps one that is there, when it is told to."""
    if not destination.knows_conditions:
        message = f"wrote {key}; the store knows no If-None-Match, so each file is looked for before it is written"
        return Finding(status="warning", message=message, code="NotImplemented", hint=ALONE_HINT)
    try:
        await destination.put(key, CONTENT, "text/plain")
    except ConflictError:
        return Finding(message=f"wrote {key}")
    message = f"wrote {key} twice: the store takes no notice of If-None-Match, and writes over what is there"
    return Finding(status="warning", message=message, code="Overwritten", hint=ALONE_HINT)


def _explain(error: MillraceError) -> Finding:
    code = store_code(error)
    hint = HINTS.get(code or "") or AZURE_HINTS.get(code or "") or KIND_HINTS.get(error.code)
    return Finding(status="failed", message=error.message, code=code or error.code, hint=hint)
