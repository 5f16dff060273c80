"""What an upload is called and how much of it is taken."""

import hashlib

import pytest

from shared.errors import TooLargeError
from storage.uploads import Intake, content_of, object_key

ID = "ab" + "0" * 30


@pytest.mark.parametrize(
    ("prefix", "variant", "expected"),
    [
        ("", "", f"shop/message-image/ab/{ID}.jpg"),
        ("media", "", f"media/shop/message-image/ab/{ID}.jpg"),
        ("a/b", "_t320v1", f"a/b/shop/message-image/ab/{ID}_t320v1.jpg"),
    ],
)
def test_key_names_tenant_kind_and_content(prefix: str, variant: str, expected: str) -> None:
    assert expected == object_key(prefix, "shop", "message-image", ID, "jpg", variant=variant)


def test_intake_gives_the_bytes_and_their_hash() -> None:
    intake = Intake(10)

    intake.add(b"hello")
    intake.add(b"world")

    content = intake.content()
    assert b"helloworld" == content.data
    assert hashlib.sha256(b"helloworld").hexdigest() == content.sha256
    assert content.sha256[:32] == content.id
    assert content == content_of(b"helloworld")


def test_intake_refuses_as_soon_as_the_limit_is_passed() -> None:
    intake = Intake(4)
    intake.add(b"1234")

    with pytest.raises(TooLargeError, match="at most 4 bytes"):
        intake.add(b"5")
