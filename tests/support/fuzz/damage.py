"""Damage at random: to bytes, and to JSON values in ways that stay JSON, or nearly so."""

import gzip
import json
import random
import zlib
from collections.abc import Callable
from typing import Any

from msgspec import Struct

TOKENS = (
    *(b"\r\n", b"\n", b"\0", b"\xff", b"\xc3", b":", b";", b",", b'"', b"\\", b"%", b"%00", b"\r\n\r\n", b"9" * 30),
    *(b"{", b"}", b"[", b"]", b"[[[[[[[[", b"\\ud800", b"\\u0000", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"NaN", b"1e999"),
    *(b"~", b"~~~", b'""', b"'", b"=", b"&", b"--", b"*", b">", b"$", b"..", b"../", b"\x1f\x8b", b"\xf0\x9f\x98\x80"),
)


class Raw(Struct, frozen=True):
    """Text of JSON, or of what only looks like it, that goes into a document as it is."""

    text: bytes


ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 0.5, "", " ", "0", "1", "*", ">", ".", "-", "a.b", "a b", "\0", "\n", "\u2028", "ü"),
    *(
        2**31,
        2**53 + 1,
        2**63 - 1,
        2**63,
        2**64,
        -(2**63) - 1,
        [],
        {},
        [[]],
        [{}],
        [None],
        {"": None},
        {"a": {"b": []}},
    ),
    *("x" * 64, "x" * 65, "x" * 128, "x" * 129, "x" * 1024, "x" * 1025, "x" * 2600, "ü" * 600, "x" * 70_000),
    *("***", "127.0.0.1", "http://127.0.0.1:9/", "https://[::1]/", "2026-01-01T00:00:00Z", "0000-00-00", "\U0001f600"),
    *(Raw(b"NaN"), Raw(b"-Infinity"), Raw(b"1e400"), Raw(b"-0"), Raw(b"01"), Raw(b"1.10"), Raw(b"9" * 400), Raw(b"")),
    *(Raw(b"9" * 5000), Raw(b'"\\ud800"'), Raw(b'"\\udc00\\ud800"'), Raw(b'"\xff"'), Raw(b'"\xed\xa0\x80"')),
    *(Raw(b'"a\nb"'), Raw(b'"\\q"'), Raw(b"[" * 33 + b"]" * 33), Raw(b"[" * 5000 + b"]" * 5000), Raw(b"[" * 40)),
    *(Raw(b'{"a":' * 2000 + b"1" + b"}" * 2000), Raw(b'{"a":1,"a":2}'), Raw(b"1,1"), Raw(b"[1,]"), Raw(b"/**/1")),
)


class Damage:
    """Damage by one source of chance, so that a seed gives the same again."""

    def __init__(self, at_random: random.Random) -> None:
        self.random = at_random

    def of_bytes(self, data: bytes, most: int = 4) -> bytes:
        """Flip, delete, repeat, insert, replace or cut, one to `most` times."""
        draw = self.random
        for _ in range(draw.randint(1, most)):
            first = draw.randrange(len(data) + 1)
            part = data[first : first + draw.randint(1, 12)]
            kind = draw.randrange(6)
            put = (
                bytes(byte ^ (1 << draw.randrange(8)) for byte in part)
                if kind == 0
                else b""
                if kind == 1
                else part * draw.randint(2, 40)
                if kind == 2
                else part + draw.randbytes(draw.randint(1, 12))
                if kind == 3
                else draw.choice(TOKENS) + (part if kind == 4 else b"")
            )
            data = data[:first] + put + (data[first + len(part) :] if draw.random() < 0.93 else b"")
        return data

    def of_value(self, value: Any, most: int = 3) -> Any:
        """One to `most` changes somewhere in a JSON value: other values, names, repetitions, deletions."""
        for _ in range(self.random.randint(1, most)):
            value = self._changed(value)
        return value

    def document(self, value: Any) -> bytes:
        """The text of a damaged value, rarely with damage to the text as well."""
        text = render(self.of_value(value))
        return self.of_bytes(text, 2) if self.random.random() < 0.15 else text

    def packed(self, body: bytes) -> tuple[str, bytes]:
        """A name of a coding, and the body in it; often the one does not fit the other, or it is cut or goes on."""
        name, pack = self.random.choice(PACKERS)
        data = pack(body)
        match self.random.randrange(6):
            case 0:
                data = data[: self.random.randrange(len(data) + 1)]
            case 1:
                data += self.random.choice((b"\0", b"\0" * 40, data, b"x" * 100, data[:9]))
            case 2:
                data = self.of_bytes(data)
        return name, data

    def _changed(self, value: Any) -> Any:
        draw = self.random
        if isinstance(value, dict) and value and draw.random() < 0.8:
            name = draw.choice(list(value))
            match draw.randrange(8):
                case 0:
                    return {key: kept for key, kept in value.items() if key != name}
                case 1:
                    return {
                        **value,
                        draw.choice(("x", "", "id", "a.b", name + " ", name.upper(), "x" * 300)): self._odd(),
                    }
                case 2:
                    return {self._odd_name(name) if key == name else key: kept for key, kept in value.items()}
                case 3:
                    return {**value, name: draw.choice(list(value.values()))}
                case _:
                    return {**value, name: self._changed(value[name])}
        if isinstance(value, list) and value and draw.random() < 0.8:
            at = draw.randrange(len(value))
            match draw.randrange(6):
                case 0:
                    return value[:at] + value[at + 1 :]
                case 1:
                    return value[:at] + value[at : at + 1] * draw.choice((2, 3, 50)) + value[at + 1 :]
                case 2:
                    return [*value[:at], self._odd(), *value[at:]]
                case _:
                    return [*value[:at], self._changed(value[at]), *value[at + 1 :]]
        if isinstance(value, str) and draw.random() < 0.5:
            return self.of_bytes(value.encode(errors="surrogatepass"), 2).decode(errors="replace")
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**64 and draw.random() < 0.5:
            return draw.choice(
                (value + 1, value - 1, -value, value * 1000, str(value), value + 0.5, Raw(b"%d.0" % value))
            )
        return self._odd()

    def _odd(self) -> Any:
        return self.random.choice(ODD_VALUES)

    def _odd_name(self, name: str) -> str:
        return self.random.choice((name + "x", name[:-1], name.upper(), "", "\0", "ü", name + "\n", "__class__"))


def _gzip(body: bytes) -> bytes:
    return gzip.compress(body, 1)


def _bare_deflate(body: bytes) -> bytes:
    return zlib.compress(body, wbits=-15)


PACKERS: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
    ("gzip", _gzip),
    ("gzip", _gzip),
    ("x-gzip", _gzip),
    ("GZIP", _gzip),
    ("deflate", zlib.compress),
    ("deflate", _bare_deflate),
    ("gzip", lambda body: _gzip(body[: len(body) // 2]) + _gzip(body[len(body) // 2 :])),
    ("gzip", lambda body: _gzip(_gzip(body))),
    ("gzip", lambda body: _gzip(body + b" " * (8 << 20))),
    ("gzip", lambda body: body),
    ("gzip", lambda _: b""),
    ("identity", lambda body: body),
    ("identity", _gzip),
    ("br", lambda body: body),
    ("gzip, gzip", lambda body: _gzip(_gzip(body))),
    ("", _gzip),
)


def render(value: Any) -> bytes:
    """Text of a value that may hold `Raw`, numbers that JSON has not, and lone surrogates."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, dict):
        return b"{" + b",".join(render(name) + b":" + render(held) for name, held in value.items()) + b"}"
    if isinstance(value, list | tuple):
        return b"[" + b",".join(render(held) for held in value) + b"]"
    return json.dumps(value).encode()
