"""What an upload is called."""

import pytest

from storage.uploads import object_key

HASH = "ab" + "0" * 62


@pytest.mark.parametrize(
    ("prefix", "variant", "expected"),
    [
        ("", "", f"shop/message-image/ab/{HASH[:32]}.jpg"),
        ("media", "", f"media/shop/message-image/ab/{HASH[:32]}.jpg"),
        ("a/b", "_t320v1", f"a/b/shop/message-image/ab/{HASH[:32]}_t320v1.jpg"),
    ],
)
def test_key_names_tenant_kind_and_content(prefix: str, variant: str, expected: str) -> None:
    assert expected == object_key(prefix, "shop", "message-image", HASH, "jpg", variant=variant)
