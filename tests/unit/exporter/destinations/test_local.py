"""The local destination: the directories that it takes."""

import pytest

from exporter.destinations.local import LocalFolderConfig
from shared.errors import InvalidError


@pytest.mark.parametrize(
    ("directory", "folder"), [("a", "a"), ("/shop//clicks-1/", "shop/clicks-1"), ("a.b/_c", "a.b/_c")]
)
def test_directory_is_taken_without_extra_slashes(directory: str, folder: str) -> None:
    config = LocalFolderConfig(directory=directory)

    config.check(allow_private=False)

    assert folder == config.folder
    assert f"local {folder}" == config.location("shop")
    assert "local" == config.place("shop")


@pytest.mark.parametrize(
    "directory",
    ["", "/", ".", "..", "a/../b", "a/..", ".parts", "a/.b", "a\nb", "a\x00", "ğ", "a b", "a\\b", "a" * 101],
)
def test_directory_that_could_lead_elsewhere_is_refused(directory: str) -> None:
    with pytest.raises(InvalidError) as caught:
        LocalFolderConfig(directory=directory).check(allow_private=True)

    assert "destination.directory" == caught.value.field
