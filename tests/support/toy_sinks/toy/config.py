"""A sink that appends records to a file, which a hook names by its `url`."""

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


class ToyConfig(Struct, frozen=True):
    """`url` is `toy:` and the path of the file."""

    hook_type: ClassVar[str] = "TOY"
    title: ClassVar[str] = "toy"
    connector: ClassVar[str | None] = None
    hook_fields: ClassVar[tuple[str, ...]] = ("url",)
    limits: ClassVar[SinkLimits] = SinkLimits(call_records=10, call_bytes=1 << 20, record_bytes=1 << 20)

    url: str

    @classmethod
    @asynccontextmanager
    async def open_shared(
        cls, settings: Settings, outgoing: Outgoing, clock: Callable[[], datetime]
    ) -> AsyncIterator[None]:
        yield None

    @classmethod
    def of_hook(cls, hook: Hook) -> "ToyConfig":
        return cls(hook.url)

    def check(self, *, allow_private: bool, app_key: str) -> "ToyConfig":
        if not self.url.startswith("toy:"):
            raise InvalidError("expected toy: and a path", field="url")
        return self

    def open(self, shared: None, name: str, advise: Advise) -> "ToySink":
        return ToySink(Path(self.url.removeprefix("toy:")))

    async def test(self, shared: None, stream_name: str | None, *, test_record: bool) -> ConnectionReport:
        async def find() -> Finding:
            return Finding(message=f"{Path(self.url.removeprefix('toy:')).parent.is_dir()}")

        return await run_checks((Check(name="folder", run=find),))


class ToySink:
    """Satisfies `hooks.delivery.model.Sink`."""

    limits = ToyConfig.limits

    def __init__(self, file: Path) -> None:
        self._file = file

    async def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        with self._file.open("ab") as file:
            file.writelines(record.data + b"\n" for record in batch)
        return [Sent()] * len(batch)

    async def ping(self) -> None: ...
