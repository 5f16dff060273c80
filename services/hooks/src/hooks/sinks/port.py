"""
Port of a sink: the part of `sinks/<name>/config.py` that the service uses. No vendor is known here.

The port of an opened sink is `hooks.delivery.model.Sink`.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, ClassVar, Protocol, Self

from hooks.delivery.model import Sink, SinkLimits
from hooks.matching.hook import Hook
from shared.contracts.connection_report import ConnectionReport
from shared.outgoing.door import Outgoing
from shared.runtime.settings import Settings

Advise = Callable[[str | None], None]
"""Called with a correction that an operator should make although records are sent, and with None once it is made."""


class SinkFactory(Protocol):
    """
    The configuration of a sink, and its factory: a frozen Struct, found by the type of a hook.

    Either an app saves it once as its connector and each hook names a stream (`connector`), or each hook holds it
    (`of_hook`). A connector forbids unknown fields and has a field `active`.
    """

    hook_type: ClassVar[str]
    """`type` of the hooks whose records go to this sink."""
    title: ClassVar[str]
    """The name for people."""
    connector: ClassVar[str | None]
    """The id of an app's connector, in its key and its path; None where hooks hold the configuration."""
    hook_fields: ClassVar[tuple[str, ...]]
    """Fields of a hook that this sink needs, of `hooks.matching.hook.SINK_FIELDS`. The others have to be empty."""
    limits: ClassVar[SinkLimits]

    @classmethod
    def open_shared(
        cls, settings: Settings, outgoing: Outgoing, clock: Callable[[], datetime]
    ) -> AbstractAsyncContextManager[Any]:
        """The things that all sinks of this type share in a process, such as a client. Entered once, at start."""
        ...

    @classmethod
    def of_hook(cls, hook: Hook) -> Self | None:
        """The configuration that a hook holds; None where its app has a connector."""
        ...

    def check(self, *, allow_private: bool, app_key: str) -> Self:
        """
        The configuration as it may be saved and used: checks what the types cannot express, without I/O.

        Args:
            allow_private: Whether addresses inside the operator's network are allowed.

        Raises:
            InvalidError: A field is wrong; names it.
        """
        ...

    def open(self, shared: Any, name: str, advise: Advise) -> Sink:
        """
        The sink of one target, without I/O.

        Args:
            shared: The object that `open_shared` yields.
            name: The stream that the hook names, or the hook's id where it names none.
        """
        ...

    async def test(self, shared: Any, stream_name: str | None, *, test_record: bool) -> ConnectionReport:
        """
        Test Connection, of a configuration that `check` returned.

        Args:
            stream_name: The stream to test; None where none is named.
            test_record: Whether to put a marked record into the stream. What has no stream sends one in any case.
        """
        ...
