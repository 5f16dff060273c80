"""The keys of uploads."""

import pytest

from storage.images.image import PIPELINE
from storage.uploads.object_keys import object_key, thumbnail_variant

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


def test_thumbnails_of_other_sizes_have_other_keys() -> None:
    variants = [thumbnail_variant(side, sides) for side, sides in ((320, (320,)), (64, (320, 64)), (64, (640, 64)))]

    assert [f"_t320{PIPELINE}", f"_t64of320{PIPELINE}", f"_t64of640{PIPELINE}"] == variants
