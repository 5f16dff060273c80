import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftp_gateway.paths import FOLDERS, Location, Place, is_sent_again, kind_of, locate, place, writable
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
def test_a_name_tells_what_is_sent_again(name: str, again: bool) -> None:
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
def test_a_name_tells_what_is_processed(folder: str, name: str, kind: str | None) -> None:
    assert kind == kind_of(Place("shop", folder, name))  # type: ignore[arg-type]  # parametrize gives plain strings


TRICKS = [
    b"/../etc/passwd",
    b"//etc/passwd",
    b"///etc///passwd",
    b"/./etc/./passwd",
    b"../../../../../../etc/passwd",
    b"/../../../../../../../../root/.ssh/authorized_keys",
    b"/Profile/../../etc/passwd",
    b"/Profile/../../../etc/passwd",
    b"/Profile/..//..//etc/passwd",
    b"/errors/../../../etc/shadow",
    b"/reports/../../spool/lock",
    b"/Profile/./../.././etc/passwd",
    b"/Profile/.../.../etc/passwd",
    b"/Profile/....//....//etc/passwd",
    b"/..../etc/passwd",
    b"/.../...//etc/passwd",
    b"/%2e%2e/%2e%2e/etc/passwd",
    b"/%2e%2e%2fetc%2fpasswd",
    b"/..%2f..%2fetc%2fpasswd",
    b"/%252e%252e/etc/passwd",
    b"/..%c0%afetc/passwd",
    b"/..%00/etc/passwd",
    b"/\xc0\xae\xc0\xae/etc/passwd",
    b"/\xc0\xafetc/passwd",
    b"/\xe0\x80\xae\xe0\x80\xae/etc/passwd",
    b"/\xf0\x80\x80\xae/etc/passwd",
    b"/\xe2\x80\xa6/etc/passwd",
    b"/\xef\xbc\x8e\xef\xbc\x8e/etc/passwd",
    b"/\xef\xbc\x8fetc\xef\xbc\x8fpasswd",
    b"/\xe2\x88\x95etc\xe2\x88\x95passwd",
    b"/\xe2\x81\x84etc\xe2\x81\x84passwd",
    b"/\xed\xa0\x80.csv",
    b"/\xff\xfe/etc/passwd",
    b"..\\..\\..\\windows\\win.ini",
    b"/..\\..\\etc\\passwd",
    b"\\\\server\\share\\a.csv",
    b"C:\\windows\\win.ini",
    b"C:/windows/win.ini",
    b"/C:/a.csv",
    b"/a.csv::$DATA",
    b"/CON",
    b"/nul.csv",
    b"/a.csv.",
    b"/a.csv ",
    b"/ ../etc/passwd",
    b"/.. /etc/passwd",
    b"/..;/etc/passwd",
    b"/~/.ssh/authorized_keys",
    b"~root/.ssh/id_rsa",
    b"/~root",
    b"$HOME/.ssh/id_rsa",
    b"/${HOME}/a.csv",
    b"/`id`.csv",
    b"/$(id).csv",
    b"/;id;.csv",
    b"/|id.csv",
    b"/-rf.csv",
    b"/*.csv",
    b"/?.csv",
    b"/a\x00.csv",
    b"/a.csv\x00/../../etc/passwd",
    b"/a\n../etc/passwd",
    b"/a\r.csv",
    b"/a\t.csv",
    b"/\x1b[2Ja.csv",
    b"/\x7f.csv",
    b"/\xc2\x80.csv",
    b"/\xe2\x80\xa8.csv",
    b"/\xe2\x80\xae.csv",
    b"/proc/self/environ",
    b"/proc/self/fd/3",
    b"/dev/fd/0",
    b"/shop/push.csv",
    b"/../shop/files/push.csv",
    b"/../shop2/push.csv",
    b"/Profile2/a.txt",
    b"/Profile/errors/a.txt",
    b"/profile/a.txt",
    b"/PROFILE/a.txt",
    b"/Profile/a.txt/",
    b"/Profile/a.txt/.",
    b"/Profile/a.txt/..",
    b"/a.csv/../../a.csv",
    b"/" + b"../" * 1000 + b"etc/passwd",
    b"/" + b"a/" * 1000 + b"../" * 1000 + b"etc/passwd",
    b"/" + b"x" * 201,
    b"/" + "ş".encode() * 101,
    b"/" * 4097,
    b"/0123456789abcdef0123456789abcdef.1.closed",
    b"/0123456789abcdef0123456789abcdef.data",
]
PARTS = st.sampled_from(
    [
        b"..",
        b".",
        b"",
        b"/",
        b"//",
        b"Profile",
        b"errors",
        b"reports",
        b"etc",
        b"a.csv",
        b"\\",
        b"%2e%2e",
        b"\x00",
        b"~",
    ]
)


@pytest.mark.parametrize("path", TRICKS)
def test_a_trick_stays_in_the_tree_or_is_refused(path: bytes) -> None:
    _check_in_tree(path)


@given(st.lists(PARTS, max_size=40).map(b"/".join))
def test_a_path_of_tricky_parts_is_in_the_tree_or_refused(path: bytes) -> None:
    _check_in_tree(path)


@given(st.binary(max_size=60))
def test_any_path_is_in_the_tree_or_refused(path: bytes) -> None:
    _check_in_tree(path)


def _check_in_tree(path: bytes) -> None:
    try:
        found = locate(path)
    except MillraceError:
        return

    assert found.folder in ("", *FOLDERS)
    assert "/" not in found.name
    assert found.name not in {".", ".."}
    assert locate(found.path.encode()) == found
