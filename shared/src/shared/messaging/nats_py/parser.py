"""
nats-py's protocol parser, with a fast path for messages of streams.

For every message the library makes an object, two coroutine calls and a turn of a queue and a task. That is more than
hooks does with an event. Here a message that a durable consumer or a scan delivers is cut out of the bytes read and
delivered at once, by a plain call. So are the many replies to one request. The library parses everything else.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from nats.protocol.parser import Parser

Deliver = Callable[[str, str, list[str], bytes, bytes], None]
"""Callback with subject, reply subject, its `ACK_TOKENS` tokens, raw headers and body. Must not raise or wait."""

Answered = Callable[[bytes], None]
"""Callback with the body. Must not raise or wait."""

ACK_TOKENS: Final = 9
"""
`$JS.ACK.<stream>.<consumer>`, then the number of deliveries, the sequence in the stream, the sequence in the consumer,
the time in nanoseconds, and the number of messages behind it (NATS ADR-15). Where a domain is named there are more.
"""

_ANSWER: Final = re.compile(rb"MSG \S+ (\d+) \d+\r\n")
_OTHER: Final = re.compile(rb"H?MSG [^\r\n]* (\d+)\r\n")
_ERROR: Final = b"-ERR"
_LINE_BYTES: Final = 1 << 20
"""Limit of a line of the protocol: the server's INFO, the longest there is, has some kilobytes."""


class StreamParser(Parser):
    """
    Parser of nats-py's client. `deliver` has the callback for the messages of a subscription, by its number; `answered`
    that for messages without headers and reply subject. `last_error` is the last error of the server; the library
    forgets it when it begins to reconnect.
    """

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self.deliver: dict[str, Deliver] = {}
        self.answered: dict[int, Answered] = {}
        self.last_error = ""

    def reset(self) -> None:
        """Called by the client for every new connection."""
        super().reset()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._needed = 0

    async def parse(self, data: bytes = b"") -> None:
        """Called by the client with the bytes it has read."""
        if self._held:
            self._held.append(data)
            self._held_bytes += len(data)
            if self._held_bytes < self._needed:
                return
            data = b"".join(self._held)
            self._held.clear()
        at, end, deliver = 0, len(data), self.deliver
        while at < end:
            # `MSG subject subscription reply length`, or `HMSG` with the length of the headers before it.
            line_end = data.find(b"\r\n", at)
            words = str(data[at:line_end], "utf-8", "replace").split(" ") if line_end > 0 else []
            callback = deliver.get(words[2]) if len(words) >= 5 else None
            if callback is None or len(tokens := words[3].split(".")) != ACK_TOKENS:
                stop = self._end_of_other(data, at)
                if stop > end:
                    break
                if not (self.answered and self._deliver_answer(data, at, stop)):
                    if data.startswith(_ERROR, at):
                        self.last_error = data[at + len(_ERROR) : stop].decode(errors="replace").strip(" '\r\n")
                    await super().parse(data[at:stop])
                at = stop
                continue
            begin = line_end + 2
            stop = begin + int(words[-1])
            if stop + 2 > end:
                self._needed = stop + 2 - at
                break
            body = begin + int(words[4]) if len(words) == 6 else begin
            callback(words[1], words[3], tokens, data[begin:body], data[body:stop])
            at = stop + 2
        if at < end:
            self._held.append(data[at:])
            self._held_bytes = end - at

    def _deliver_answer(self, data: bytes, at: int, stop: int) -> bool:
        found = _ANSWER.match(data, at)
        callback = self.answered.get(int(found[1])) if found is not None else None
        if found is None or callback is None:
            return False
        callback(data[found.end() : stop - 2])
        return True

    def _end_of_other(self, data: bytes, at: int) -> int:
        """The end of the operation that begins at `at`; beyond the data where a part is missing."""
        if found := _OTHER.match(data, at):
            stop = found.end() + int(found[1]) + 2
            self._needed = stop - at
            return stop
        if (line := data.find(b"\r\n", at)) >= 0:
            return line + 2
        self._needed = 0
        # The library raises for what is no line of the protocol.
        return len(data) + 1 if len(data) - at < _LINE_BYTES else len(data)
