import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftp_gateway.model.virtual_paths import (
    FOLDERS,
    Location,
    Place,
    is_sent_again,
    kind_of,
    locate,
    place_of,
    writable_place,
)
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
    assert writable_place("shop", Location("Profile", "a.txt")) == Place("shop", "Profile", "a.txt")
    for location in (Location("errors", "a"), Location("reports", "a"), Location("Profile"), Location("")):
        with pytest.raises(DeniedError):
            writable_place("shop", location)
    with pytest.raises(DeniedError):
        place_of("shop", Location("errors"))


@pytest.mark.parametrize(
    ("name", "again"),
    [
        ("push.resend.csv", True),
        ("push.RESEND2.CSV", True),
        ("users.resend.txt", True),
        (".resend.csv", True),
        ("resend.csv", False),
        ("push.resend.csv.part", False),
        ("push.resend.x.csv", False),
        ("push.resend", False),
        ("pushresend.csv", False),
    ],
)
def test_a_name_decides_whether_a_file_is_sent_again(name: str, again: bool) -> None:
    assert again == is_sent_again(name)


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
def test_a_name_decides_the_kind_of_a_file(folder: str, name: str, kind: str | None) -> None:
    assert kind == kind_of(Place("shop", folder, name))  # type: ignore[arg-type]  # parametrize gives plain strings


UP = "../"
DEEP = "a/"

TRICKS: list[tuple[str | bytes, Location | type[MillraceError]]] = [
    # Climbing out: above the root is the root.
    ("..", Location("")),
    ("../", Location("")),
    ("/..", Location("")),
    ("/../", Location("")),
    ("/../..", Location("")),
    ("/../../", Location("")),
    ("./..", Location("")),
    ("/./../.", Location("")),
    ("//..", Location("")),
    ("/..//..//", Location("")),
    (UP * 1000, Location("")),
    ("../etc", Location("", "etc")),
    ("../../../../etc", Location("", "etc")),
    ("../etc/passwd", NotFoundError),
    ("../../../../../../etc/passwd", NotFoundError),
    (UP * 600 + "etc/passwd", NotFoundError),
    ("/Profile/..", Location("")),
    ("/Profile/../..", Location("")),
    ("/Profile/../../etc/passwd", NotFoundError),
    ("/Profile/../../../Profile/a.txt", Location("Profile", "a.txt")),
    ("/errors/../../x.csv", Location("", "x.csv")),
    ("/errors/../Profile/a.txt", Location("Profile", "a.txt")),
    ("/nothing/../x.csv", Location("", "x.csv")),
    ("/a/b/c/../../../x.csv", Location("", "x.csv")),
    (DEEP * 500 + UP * 500 + "x.csv", Location("", "x.csv")),
    # Slashes.
    ("//etc/passwd", NotFoundError),
    ("///etc/passwd", NotFoundError),
    ("//etc", Location("", "etc")),
    ("/" * 4000, Location("")),
    ("//Profile///a.txt", Location("Profile", "a.txt")),
    ("/Profile//", Location("Profile")),
    ("/x.csv/", Location("", "x.csv")),
    ("/x.csv/.", Location("", "x.csv")),
    ("/x.csv/..", Location("")),
    ("/x.csv//y", NotFoundError),
    # What a machine keeps outside.
    ("/etc/passwd", NotFoundError),
    ("/proc/self/environ", NotFoundError),
    ("/proc/self/fd/0", NotFoundError),
    ("/dev/null", NotFoundError),
    ("/dev/fd/0", NotFoundError),
    ("/root/.ssh/authorized_keys", NotFoundError),
    ("~/.ssh/authorized_keys", NotFoundError),
    ("~root", Location("", "~root")),
    ("$HOME", Location("", "$HOME")),
    ("*", Location("", "*")),
    ("file:///etc/passwd", NotFoundError),
    # Other apps, the spool, and folders that only look like ours.
    ("/app1/x.csv", NotFoundError),
    ("../app10/x.csv", NotFoundError),
    ("/../app1", Location("", "app1")),
    ("/spool/x.data", NotFoundError),
    ("../ftp/host_key", NotFoundError),
    ("/profile/a.txt", NotFoundError),
    ("/PROFILE/a.txt", NotFoundError),
    ("/Profile /a.txt", NotFoundError),
    ("/Profile./a.txt", NotFoundError),
    ("/Profile/sub/a.txt", NotFoundError),
    ("/errors2/x", NotFoundError),
    ("/errors/sub/../x", Location("errors", "x")),
    # Encodings of dots and slashes are letters of a name, and only once.
    ("/%2e%2e/etc/passwd", NotFoundError),
    ("/%2e%2e%2fetc%2fpasswd", Location("", "%2e%2e%2fetc%2fpasswd")),
    ("..%2f..%2fetc", Location("", "..%2f..%2fetc")),
    ("..%c0%af..%c0%afetc", Location("", "..%c0%af..%c0%afetc")),
    ("\uff0e\uff0e/etc/passwd", NotFoundError),
    ("\uff0e\uff0e\uff0fetc", Location("", "\uff0e\uff0e\uff0fetc")),
    ("\u2025/etc/passwd", NotFoundError),
    ("..\u2215etc", Location("", "..\u2215etc")),
    ("/..\u200b/etc/passwd", NotFoundError),
    (b"/\xc0\xae\xc0\xae/etc/passwd", InvalidError),
    (b"/\xc0\xafetc", InvalidError),
    (b"/\xe0\x80\xae.csv", InvalidError),
    (b"/\xed\xa0\x80.csv", InvalidError),
    (b"/\xf4\x90\x80\x80.csv", InvalidError),
    (b"/\xff\xfe.\x00.\x00", InvalidError),
    (b"/caf\xe9.csv", InvalidError),
    # Dots that are a name.
    ("/...", Location("", "...")),
    ("/....//", Location("", "....")),
    ("/.. ", Location("", ".. ")),
    ("/ ..", Location("", " ..")),
    ("/..csv", Location("", "..csv")),
    # Windows.
    ("..\\..\\windows", InvalidError),
    ("/Profile\\..\\x.csv", InvalidError),
    ("C:\\x.csv", InvalidError),
    ("C:/x.csv", NotFoundError),
    ("C:", Location("", "C:")),
    ("\\\\host\\share", InvalidError),
    ("/x.csv::$DATA", Location("", "x.csv::$DATA")),
    ("/NUL", Location("", "NUL")),
    # Characters that end or break a line, a word or a string.
    ("/x.csv\x00", InvalidError),
    ("/x.csv\x00.txt", InvalidError),
    ("/..\x00/etc/passwd", InvalidError),
    ("/x\n.csv", InvalidError),
    ("/x\r.csv", InvalidError),
    ("/x\t.csv", InvalidError),
    ("/x\x1b[31m.csv", InvalidError),
    ("/x\x7f.csv", InvalidError),
    ("/x\x85.csv", InvalidError),
    ("/x\u2028.csv", InvalidError),
    ("/x\u2029.csv", InvalidError),
    ("/Profile/../x\x00/../x.csv", InvalidError),
    # Length: 200 bytes for a name, 4096 for a path.
    ("/" + "x" * 200, Location("", "x" * 200)),
    ("/" + "x" * 201, InvalidError),
    ("/" + "\u011f" * 100, Location("", "\u011f" * 100)),
    ("/" + "\u011f" * 101, InvalidError),
    ("/" + "x" * 201 + "/../x.csv", InvalidError),
    ("/" * 4091 + "x.csv", Location("", "x.csv")),
    ("/" * 4092 + "x.csv", InvalidError),
]


@pytest.mark.parametrize(("trick", "expected"), TRICKS, ids=[repr(trick)[:40] for trick, _ in TRICKS])
def test_no_trick_leaves_the_tree(trick: str | bytes, expected: Location | type[MillraceError]) -> None:
    path = trick if isinstance(trick, bytes) else trick.encode()
    if isinstance(expected, Location):
        assert expected == locate(path)
    else:
        with pytest.raises(expected):
            locate(path)


PIECES = st.sampled_from(
    [
        *(b"..", b".", b"", b"/", b"//", b"\\", b"\x00", b"\n", b" ", b"~", b"%2e%2e", b"\xc0\xae", "\uff0e".encode()),
        *(b"etc", b"passwd", b"Profile", b"errors", b"reports", b"app1", b"app10", b"x.csv", b"x" * 199),
    ]
)


@given(st.one_of(st.binary(max_size=60), st.lists(PIECES, max_size=30).map(b"/".join), st.lists(PIECES).map(b"".join)))
def test_any_path_is_in_the_tree_or_refused(path: bytes) -> None:
    try:
        found = locate(path)
    except MillraceError:
        return

    assert found.folder in ("", *FOLDERS)
    assert "/" not in found.name
    assert found.name not in {".", ".."}
    assert locate(found.path.encode()) == found
