"""Addresses and token of the services, as an operator passes them."""

from pathlib import Path

import pytest

from millrace.mesh.service_api import parse_urls, read_token
from shared.config.tokens import new_token
from shared.errors import InvalidError


def test_urls_are_parsed_by_service() -> None:
    urls = parse_urls(["hooks=https://hooks.example/", "storage=http://127.0.0.1:8081"])

    assert {"hooks": "https://hooks.example", "storage": "http://127.0.0.1:8081"} == urls


@pytest.mark.parametrize("text", ["hook=http://x", "hooks", "hooks=ftp://x", "http://x"])
def test_url_without_a_service_is_refused(text: str) -> None:
    with pytest.raises(InvalidError, match="expected SERVICE=http"):
        parse_urls([text])


def test_token_is_the_local_mesh_s_own_unless_a_file_is_named(tmp_path: Path) -> None:
    local, other = new_token(), new_token()
    (tmp_path / "admin-token").write_text(f"{local}\n")
    (tmp_path / "other").write_text(f"{other}\n")

    assert local == read_token(None, tmp_path)
    assert other == read_token(tmp_path / "other", tmp_path)


def test_token_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="No such file") as caught:
        read_token(tmp_path / "none", tmp_path)

    assert str(tmp_path / "none") == caught.value.field
