"""
Files that a generator makes as nasty as it can. Whatever is in them, reading ends, every row is counted once as good or
bad, and the good ones are those that go out.

`FUZZ_FILES` says how many there are; `.ci/run` takes 100,000.
"""

import codecs
import os
import re
from collections.abc import Iterator, Sequence
from random import Random

import pytest

from ftp_gateway.model.rules import FileKind, FileRules
from ftp_gateway.parsing import profile_txt, push_csv
from ftp_gateway.parsing.file_reader import FileReader, RowChunk, ValidationResult
from ftp_gateway.parsing.text import MAX_LINE_BYTES, excerpt
from shared.contracts.messages import ProfileBatch, PushBatch, decode

FILES = int(os.environ.get("FUZZ_FILES", "4000"))
PARTS = 4

PUSH_PIECES = (
    *("1", "0042", "user-7", "12e5", "1,2E+10", "Ayşe", "x" * 300, "", " "),
    *(
        ";",
        ";",
        ";",
        ";;",
        '"',
        '""',
        "\\n",
        "\\\\n",
        "\\",
        "\t",
        "\x0b",
        "\u2028",
        "\x85",
        "\ufeff",
        "\x1c",
        "😀",
        "İ",
    ),
    *("https://x.example", "app://x;y", "x:y", "mailto:", "http", ": ", "y" * 5000, "Hello; you", "ExternalID"),
    *('"Hello; ""you"""', '"app://x"', "https://x y"),
)
PROFILE_PIECES = (
    *("1", "0042", "user-7", "Ayşe", "x" * 300, "", " ", "a@b", "@", "token"),
    *(
        "~",
        "~",
        "~",
        "~~",
        '"',
        '""',
        '"a ~ b"',
        '"a" ~',
        "[",
        "]",
        '["a", "b"]',
        "[1, 2",
        "[1e999]",
        "[[1]]",
        "[null]",
    ),
    *(
        "25",
        "-1.5",
        "1e400",
        "9" * 30,
        "true",
        "FALSE",
        "2026-11-22",
        "2026-02-30",
        "2026-11-22 10:00",
        "1763800000000",
    ),
    *("\t", "\x0b", "\u2028", "\x85", "\x1c", "😀", "İ", "NaN", "\\"),
)
PATTERNS = ("~~~city~age", "extID~email~device token~city~age", "~~~", "~~~extID~email~device token~a", "city~age", "")
GOOD = {"push": "7;Hello;https://x.example", "profile": '7~a@b.example~token~"İzmir"~25'}


def lines_of(random: Random, kind: FileKind) -> Iterator[str]:
    if kind == "profile":
        yield random.choice(PATTERNS)
    elif random.random() < 0.3:
        yield random.choice(("ExternalID;Text;Deeplink", '"ExternalID";"Text";"Deeplink"', "externalid;TEXT"))
    pieces = PUSH_PIECES if kind == "push" else PROFILE_PIECES
    for _ in range(random.randrange(8)):
        chance = random.random()
        if chance < 0.3:
            yield GOOD[kind]
        elif chance < 0.302:
            yield "z" * (MAX_LINE_BYTES + random.randrange(-1, 3))
        else:
            yield "".join(random.choices(pieces, k=random.randrange(12)))


def file_of(random: Random, kind: FileKind) -> bytes:
    """One file: most are text in some encoding, some are cut or have bytes that no text has."""
    end = random.choice(("\n", "\n", "\r\n", "\r"))
    text = end.join(lines_of(random, kind)) + random.choice((end, end, ""))
    encoding = random.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1254"))
    data = text.encode(encoding, errors="ignore")
    chance = random.random()
    if chance < 0.1:
        data = data[: random.randrange(len(data) + 1)]
    elif chance < 0.2:
        at = random.randrange(len(data) + 1)
        data = data[:at] + random.choice((b"\0", b"\xff", b"\x81", b"\xc3", b"\r", codecs.BOM_UTF8)) + data[at:]
    return data


def read(data: bytes, kind: FileKind, block: int) -> tuple[ValidationResult, list[RowChunk]]:
    def blocks() -> Iterator[bytes]:
        for at in range(0, len(data), block):
            yield data[at : at + block]

    def unknown_users(ext_ids: Sequence[str]) -> set[str]:
        return {ext_id for ext_id in ext_ids if ext_id.startswith("0")}

    rules = FileRules(fallback_encoding="windows-1254", unknown_users="reject")
    reading = FileReader("shop", kind, rules, blocks, unknown_users)
    validation = reading.validate()
    return validation, [] if validation.refused else list(reading.chunks("file", after=0))


def lines_in(chunk: RowChunk, kind: FileKind) -> list[int]:
    if kind == "push":
        return [row.line for row in decode(chunk.data, PushBatch).rows]
    return [row.line for row in decode(chunk.data, ProfileBatch).rows]


def lines_of_text(data: bytes) -> list[str]:
    """The physical lines of a file that is not refused, found in the plainest way."""
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = data.decode("utf-16") if wide else as_text_of_bytes(data)
    return [line.removesuffix("\r") for line in text.split("\n")]


def rows_in(lines: Sequence[str], kind: FileKind) -> int:
    """Count the rows in the lines."""
    count = sum(1 for line in lines if line.strip())
    if kind == "push":
        header = ";".join(name.strip() for name in lines[0].strip().split(";")).replace('"', "").lower()
        return count - (header == "externalid;text;deeplink")
    return count - 1


def as_text_of_bytes(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1254")


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("kind", ["push", "profile"])
def test_rows_in_are_rows_ok_and_rows_bad_in_any_file(kind: FileKind, part: int) -> None:
    random = Random(f"{kind} {part}")
    taken = 0
    for number in range(FILES // (2 * PARTS)):
        data = file_of(random, kind)
        validation, chunks = read(data, kind, random.choice((70, 1000, 1 << 20)))
        sent = [line for chunk in chunks for line in lines_in(chunk, kind)]
        errors = [error.line for error in validation.errors]

        if validation.refused is None:
            taken += 1
            lines = lines_of_text(data)
            assert rows_in(lines, kind) == validation.ok + validation.bad, (number, data)
            shown = [error for error in validation.errors if error.code != "line_too_long"]
            assert [excerpt(lines[error.line - 1]) for error in shown] == [error.excerpt for error in shown], (
                number,
                data,
            )
        assert validation.bad == len(errors), (number, data)
        assert sorted(set(errors)) == errors, (number, data)
        if validation.refused is None:
            assert validation.ok == len(sent), (number, data)
            assert sorted(set(sent)) == sent, (number, data)
            assert not set(sent) & set(errors), (number, data)
    assert taken > FILES // (2 * PARTS) // 5


@pytest.mark.parametrize("kind", ["push", "profile"])
def test_the_short_ways_mean_what_the_careful_ones_mean(kind: FileKind, monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(kind)
    files = [file_of(random, kind) for _ in range(FILES // 10)]
    short = [read(data, kind, 1000) for data in files]
    for plain, count_only in push_csv._PATTERNS:
        careful = rb"()(.*)\n" if count_only else rb"()()()(.*)\n"
        monkeypatch.setitem(push_csv._PATTERNS, (plain, count_only), re.compile(careful))
    monkeypatch.setattr(profile_txt, "_ROW", re.compile(rb"()()()()(.*)\n"))

    assert short == [read(data, kind, 1000) for data in files]
