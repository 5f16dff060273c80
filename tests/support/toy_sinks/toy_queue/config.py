"""A sink that appends records to files in a folder, which an app names once by its connector."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from msgspec import Struct

from hooks.delivery.model import Outcome, Record, Sent, SinkLimits
from hooks.matching.hook import Hook
from hooks.sinks.port import Advise
from shared.contracts.connection_report import Check, ConnectionReport, Finding, run_checks
from shared.errors import InvalidError
from shared.outgoing.door import Outgoing
from shared.runtime.settings import Settings


class ToyQueueConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`folder` is an absolute path."""

    hook_type: ClassVar[str] = "TOY_QUEUE"
    title: ClassVar[str] = "toy"
    connector: ClassVar[str | None] = "toy-queue"
    hook_fields: ClassVar[tuple[str, ...]] = ("stream_name",)
    limits: ClassVar[SinkLimits] = SinkLimits(call_records=10, call_bytes=1 << 20, record_bytes=1 << 20)

    folder: str
    active: bool = True

    @classmethod
    @asynccontextmanager
    async def open_shared(
        cls, settings: Settings, outgoing: Outgoing, clock: Callable[[], datetime]
    ) -> AsyncIterator[None]:
        yield None

    @classmethod
    def of_hook(cls, hook: Hook) -> None:
        return None

    def check(self, *, allow_private: bool, app_key: str) -> "ToyQueueConfig":
        if not Path(self.folder).is_absolute():
            raise InvalidError("expected an absolute path", field="folder")
        return self

    def open(self, shared: None, name: str, advise: Advise) -> "ToyQueueSink":
        return ToyQueueSink(Path(self.folder) / name)

    async def test(self, shared: None, stream_name: str | None, *, test_record: bool) -> ConnectionReport:
        async def find() -> Finding:
            return Finding(message=f"{stream_name} in {self.folder}")

        return await run_checks((Check(name="folder", run=find),))


class ToyQueueSink:
    """Satisfies `hooks.delivery.model.Sink`."""

    limits = ToyQueueConfig.limits

    def __init__(self, file: Path) -> None:
        self._file = file

    async def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        with self._file.open("ab") as file:
            file.writelines(record.data + b"\n" for record in batch)
        return [Sent()] * len(batch)

    async def ping(self) -> None: ...
