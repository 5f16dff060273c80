from collections.abc import AsyncGenerator, Sequence

import pytest

from ftp_gateway import survey as surveys
from ftp_gateway.formats import CHUNK_BYTES, CHUNK_ROWS, Chunks, FileKind, Rules
from ftp_gateway.survey import LineSet, Survey, make_survey
from shared.messages import PushRow


async def surveyed(
    data: bytes, kind: FileKind = "push", rules: Rules | None = None, known: Sequence[str] = ()
) -> Survey:
    async def blocks() -> AsyncGenerator[bytes, None]:
        for at in range(0, len(data), 50):
            yield data[at : at + 50]

    async def unknown_users(app_key: str, ext_ids: Sequence[str]) -> set[str]:
        return set(ext_ids) - set(known)

    return await make_survey("shop", kind, rules or Rules(), blocks, unknown_users)


async def test_a_file_is_counted_before_anything_happens() -> None:
    found = await surveyed(b"1;a;https://x\nbad\n2;b;https://x\n1;c;https://x\n")

    assert (3, 1, 1, 4, None) == (found.ok, found.bad, found.duplicates, found.last_line, found.refused)
    assert [2] == [error.line for error in found.errors]
    assert len(found.file_id) == 32


async def test_duplicates_are_counted_at_least_when_there_are_too_many_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surveys, "MAX_COUNTED_IDS", 2)

    found = await surveyed(b"1;a;https://x\n2;b;https://x\n3;c;https://x\n3;d;https://x\n1;e;https://x\n")

    assert (1, True) == (found.duplicates, found.duplicates_at_least)


async def test_a_refused_file_keeps_its_reason() -> None:
    assert [
        (found.refused.reason if found.refused else None)
        for found in [
            await surveyed(b""),
            await surveyed(b"\n \n"),
            await surveyed(b"~~~city\n", "profile"),
            await surveyed(b"1;a;https://x\n2;b"),
            await surveyed(b"\xff\n"),
        ]
    ] == ["empty", "empty", "empty", "truncated", "encoding"]


async def test_a_last_line_without_its_end_is_warned_of() -> None:
    found = await surveyed(b"1;a;https://x\n2;b;https://x")

    assert (2, ("no_line_end",)) == (found.ok, found.warnings)


async def test_unknown_users_are_errors_only_where_the_app_says_so() -> None:
    data = b"~~~city\n1~~~1\n2~~~2\n3~~~3\n"

    taken = await surveyed(data, "profile", known=["2"])
    refused = await surveyed(data, "profile", Rules(unknown_users="reject"), known=["2"])

    assert (3, 0) == (taken.ok, taken.bad)
    assert (1, 2) == (refused.ok, refused.bad)
    assert [True, False, True] == [line in refused.unknown for line in (2, 3, 4)]


def test_a_set_of_lines_holds_what_was_put_in() -> None:
    lines, numbers = LineSet(), {1, 7, 8, 500, 100_000}
    for number in numbers:
        lines.add(number)

    assert numbers == {number for number in range(100_100) if number in lines}


def test_chunks_are_bounded_by_rows_and_bytes() -> None:
    def chunked(sizes: list[int]) -> list[int]:
        chunks = Chunks()
        rows = [(size, PushRow(id="f:1", line=1, ext_id="1", text="x")) for size in sizes]
        return [len(chunk) for chunk in [*chunks.add(rows), chunks.rest()]]

    assert [CHUNK_ROWS, CHUNK_ROWS, 1] == chunked([10] * (2 * CHUNK_ROWS + 1))
    assert [2, 2, 1] == chunked([CHUNK_BYTES // 2] * 5)
    assert [1, 1] == chunked([CHUNK_BYTES * 2, 1])
