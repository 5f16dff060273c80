from collections.abc import Iterator, Sequence

import pytest

from ftp_gateway.model.rules import FileKind, FileRules
from ftp_gateway.parsing import file_reader
from ftp_gateway.parsing.file_reader import FileReader, LineSet, ValidationResult
from ftp_gateway.parsing.formats import CHUNK_BYTES, CHUNK_ROWS, ChunkBuilder
from shared.contracts.messages import ProfileBatch, PushBatch, decode


def reading_of(
    data: bytes, kind: FileKind = "push", rules: FileRules | None = None, known: Sequence[str] = (), block: int = 50
) -> FileReader:
    def blocks() -> Iterator[bytes]:
        for at in range(0, len(data), block):
            yield data[at : at + block]

    def unknown_users(ext_ids: Sequence[str]) -> set[str]:
        return set(ext_ids) - set(known)

    return FileReader("shop", kind, rules or FileRules(), blocks, unknown_users)


def validated(
    data: bytes, kind: FileKind = "push", rules: FileRules | None = None, known: Sequence[str] = ()
) -> ValidationResult:
    return reading_of(data, kind, rules, known).validate()


def test_a_file_is_counted_before_anything_happens() -> None:
    found = validated(b"1;a;https://x\nbad\n2;b;https://x\n1;c;https://x\n")

    assert (3, 1, 1, 4, None) == (found.ok, found.bad, found.duplicates, found.last_line, found.refused)
    assert [2] == [error.line for error in found.errors]
    assert len(found.file_id) == 32


def test_duplicates_are_counted_at_least_when_there_are_too_many_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_reader, "MAX_COUNTED_IDS", 2)

    found = validated(b"1;a;https://x\n2;b;https://x\n3;c;https://x\n3;d;https://x\n1;e;https://x\n")

    assert (1, True) == (found.duplicates, found.duplicates_at_least)


def test_a_refused_file_keeps_its_reason() -> None:
    assert [
        (found.refused.reason if found.refused else None)
        for found in [
            validated(b""),
            validated(b"\n \n"),
            validated(b"~~~city\n", "profile"),
            validated(b"1;a;https://x\n2;b"),
            validated(b"\xff\n"),
        ]
    ] == ["empty", "empty", "empty", "truncated", "encoding"]


def test_a_last_line_without_its_end_is_warned_of() -> None:
    found = validated(b"1;a;https://x\n2;b;https://x")

    assert (2, ("no_line_end",)) == (found.ok, found.warnings)


def test_unknown_users_are_errors_only_where_the_app_says_so() -> None:
    data = b'~~~city\n1~~~1\n2~~~2\n 3 ~~~"x"\r\n'

    reading = reading_of(data, "profile", FileRules(unknown_users="reject"), known=["2"])
    taken = validated(data, "profile", known=["2"])
    refused = reading.validate()
    [chunk] = reading.chunks("p.txt", after=0)

    assert (3, 0) == (taken.ok, taken.bad)
    assert (1, 2) == (refused.ok, refused.bad)
    assert [(2, "unknown_user", "1~~~1"), (4, "unknown_user", ' 3 ~~~"x"')] == [
        (error.line, error.code, error.excerpt) for error in refused.errors
    ]
    assert ["2"] == [row.ext_id for row in decode(chunk.data, ProfileBatch).rows]


def test_a_file_of_which_a_row_is_bad_is_refused_whole_where_the_app_says_so() -> None:
    rules = FileRules(all_or_nothing=True)
    refused = validated(b"1;a;https://x\nbad\n", rules=rules).refused

    assert refused is not None
    assert "all_or_nothing" == refused.reason
    assert validated(b"1;a;https://x\n", rules=rules).refused is None


@pytest.mark.parametrize("after", [0, 1, 499, 500, 1003, 1005])
def test_the_rows_after_a_line_follow_whatever_the_blocks(after: int) -> None:
    data = b"".join(b"%d;Hello;https://x\n" % number for number in range(1, 1004)) + b"bad\n1005;Hello;https://x"
    expected = [number for number in (*range(1, 1004), 1005) if number > after]

    for block in (100, 1 << 20):
        reading = reading_of(data, block=block)
        reading.validate()
        chunks = list(reading.chunks("push.csv", after))

        assert expected == [row.line for chunk in chunks for row in decode(chunk.data, PushBatch).rows]


def test_a_set_of_lines_holds_what_was_put_in() -> None:
    lines, numbers = LineSet(), {1, 7, 8, 500, 100_000}
    for number in numbers:
        lines.add(number)

    assert numbers == {number for number in range(100_100) if number in lines}


def test_chunks_are_bounded_by_rows_and_bytes() -> None:
    def chunked(sizes: list[int]) -> list[int]:
        chunks = ChunkBuilder()
        made = chunks.add(range(len(sizes)), [bytes(size) for size in sizes])
        return [len(rows) for _, rows in [*made, chunks.rest()]]

    assert [CHUNK_ROWS, CHUNK_ROWS, 1] == chunked([10] * (2 * CHUNK_ROWS + 1))
    assert [2, 2, 1] == chunked([CHUNK_BYTES // 2] * 5)
    assert [1, 1] == chunked([CHUNK_BYTES * 2, 1])
