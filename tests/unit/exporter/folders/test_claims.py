"""When claims of folders clash."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.folders.claims import FolderClaim, overlap

PATHS = st.lists(st.sampled_from(["a", "ab", "b"]), max_size=3)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("a", "a", True), ("a", "a/b", True), ("a", "ab", False), ("a/b", "a/c", False), ("", "a", True), ("", "", True)],
)
def test_folders_overlap_when_one_is_in_the_other(one: str, other: str, expected: bool) -> None:
    assert (expected, expected) == (overlap(one, other), overlap(other, one))


@given(PATHS, PATHS)
def test_folders_overlap_when_one_begins_with_all_parts_of_the_other(one: list[str], other: list[str]) -> None:
    least = min(len(one), len(other))

    assert (one[:least] == other[:least]) == overlap("/".join(one), "/".join(other))


@pytest.mark.parametrize(
    ("app_key", "export_id", "proven", "other_proven", "expected"),
    [
        ("shop", "b", True, True, True),
        ("shop", "b", False, False, True),
        ("shop", "a", True, True, False),
        ("rival", "a", True, True, True),
        ("rival", "a", False, True, False),
        ("rival", "a", True, False, False),
    ],
)
def test_claims_of_two_apps_clash_when_both_are_proven(
    app_key: str, export_id: str, proven: bool, other_proven: bool, expected: bool
) -> None:
    claim = FolderClaim(app_key="shop", export_id="a", path="raw", proven=proven)
    other = FolderClaim(app_key=app_key, export_id=export_id, path="raw/clicks", proven=other_proven)

    assert expected == claim.clashes_with(other)
