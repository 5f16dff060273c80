import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftp_gateway.paths import FOLDERS, Location, Place, kind_of, locate, place, writable
from shared.errors import DeniedError, InvalidError, MillraceError, NotFoundError


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"", Location("")),
        (b"/", Location("")),
        (b".", Location("")),
        (b"/..", Location("")),
        (b"//push.csv", Location("", "push.csv")),
        (b"push.csv", Location("", "push.csv")),
        (b"/Profile", Location("Profile")),
        (b"/Profile/", Location("Profile")),
        (b"/Profile/a.txt", Location("Profile", "a.txt")),
        (b"/Profile/../errors/./a.csv", Location("errors", "a.csv")),
        (b"/../../../push.csv", Location("", "push.csv")),
        (b"/profile", Location("", "profile")),
        ("/Çağrı.csv".encode(), Location("", "Çağrı.csv")),
        (b"/...", Location("", "...")),
    ],
)
def test_a_path_is_a_folder_and_a_name(path: bytes, expected: Location) -> None:
    assert expected == locate(path)


@pytest.mark.parametrize("path", [b"/etc/passwd", b"/Profile/a/b", b"/a.csv/b"])
def test_there_are_no_other_folders(path: bytes) -> None:
    with pytest.raises(NotFoundError):
        locate(path)


@pytest.mark.parametrize(
    "path",
    [b"/a\x00", b"/a\n", b"/a\x1b", b"/a\x7f", b"/a\\b", b"/\xff", b"/" + b"x" * 201, b"/x" * 3000, b"/\xc2\x9b"],
)
def test_a_name_that_no_file_may_have_is_refused(path: bytes) -> None:
    with pytest.raises(InvalidError):
        locate(path)


def test_only_files_of_the_writable_folders_can_be_written() -> None:
    assert writable("shop", Location("Profile", "a.txt")) == Place("shop", "Profile", "a.txt")
    for location in (Location("errors", "a"), Location("reports", "a"), Location("Profile"), Location("")):
        with pytest.raises(DeniedError):
            writable("shop", location)
    with pytest.raises(DeniedError):
        place("shop", Location("errors"))


@pytest.mark.parametrize(
    ("folder", "name", "kind"),
    [
        ("", "push.csv", "push"),
        ("", "PUSH.CSV", "push"),
        ("", "push.txt", "push"),
        ("", "push.part.csv", "push"),
        ("", "push.csv.filepart", None),
        ("", "push.csv.part", None),
        ("", "push.csv.PART", None),
        ("", "push.csv.tmp", None),
        ("", ".in.push.csv", None),
        ("", ".push.csv", None),
        ("", "~push.csv", None),
        ("", "push.csv.gz", None),
        ("", "push", None),
        ("Profile", "a.txt", "profile"),
        ("Profile", "a.csv", None),
        ("errors", "a.csv", None),
        ("reports", "a.csv", None),
    ],
)
def test_a_name_tells_what_is_processed(folder: str, name: str, kind: str | None) -> None:
    assert kind == kind_of(Place("shop", folder, name))  # type: ignore[arg-type]  # parametrize gives plain strings


@given(st.binary(max_size=60))
def test_any_path_is_in_the_tree_or_refused(path: bytes) -> None:
    try:
        found = locate(path)
    except MillraceError:
        return

    assert found.folder in ("", *FOLDERS)
    assert "/" not in found.name
    assert found.name not in {".", ".."}
    assert locate(found.path.encode()) == found
