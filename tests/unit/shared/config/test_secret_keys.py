"""Keys of secrets: what they sign, and that a changed file is read again."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config.secret_keys import SecretKeys, UnsignedError, generate_key, split_keys
from shared.errors import InvalidError

KEY = "tokens.0f1e2d"
DATA = b'{"scopes":["admin"]}'
OLD, NEW = generate_key(), generate_key()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with the old key."""
    path = tmp_path / "secret-keys"
    path.write_text(f"{OLD}\n")
    return path


@pytest.fixture
def keys(file: Path) -> SecretKeys:
    return SecretKeys([OLD], file)


def refusal(keys: SecretKeys, key: str, data: bytes, signature: str | None) -> str:
    with pytest.raises(UnsignedError) as caught:
        keys.verify(key, data, signature)
    return caught.value.message


class TestSignatures:
    def test_every_key_verifies_and_the_first_signs(self) -> None:
        old, both, new = SecretKeys([OLD]), SecretKeys([NEW, OLD]), SecretKeys([NEW])

        both.verify(KEY, DATA, old.sign(KEY, DATA))
        new.verify(KEY, DATA, both.sign(KEY, DATA))

        assert both.is_signed_with_first(new.sign(KEY, DATA))
        assert not both.is_signed_with_first(old.sign(KEY, DATA))

    @pytest.mark.parametrize("signature", [None, ""])
    def test_no_signature_is_refused(self, keys: SecretKeys, signature: str | None) -> None:
        assert "it has no signature" == refusal(keys, KEY, DATA, signature)

    def test_signature_of_another_mesh_is_refused(self, keys: SecretKeys) -> None:
        assert "not among the secret keys" in refusal(keys, KEY, DATA, SecretKeys([NEW]).sign(KEY, DATA))

    @given(key=st.text("abc.\x01", max_size=6), data=st.binary(max_size=6))
    def test_signature_is_of_one_key_and_one_value(self, key: str, data: bytes) -> None:
        keys = SecretKeys([OLD])
        signature = keys.sign(KEY, DATA)

        assert "not of this content" in refusal(keys, key, data, signature)
        assert "not of this content" in refusal(keys, KEY + DATA[:1].decode(), DATA[1:], signature)

    @pytest.mark.parametrize("cut", [slice(0, 17), slice(0, -1), slice(0, 16)])
    def test_signature_that_is_cut_is_refused(self, keys: SecretKeys, cut: slice) -> None:
        assert "not of this content" in refusal(keys, KEY, DATA, keys.sign(KEY, DATA)[cut])

    def test_signature_of_any_text_is_refused_and_not_an_error(self, keys: SecretKeys) -> None:
        id = keys.sign(KEY, DATA).partition(".")[0]

        for text in ("é", ".", "..", f"{id}.é", f"{id}", "x" * 10_000):
            assert refusal(keys, KEY, DATA, text)

    def test_signature_shows_nothing_of_the_key(self, keys: SecretKeys) -> None:
        assert OLD not in keys.sign(KEY, DATA)


class TestFile:
    def test_unknown_key_is_looked_for_in_the_file(self, keys: SecretKeys, file: Path) -> None:
        new = SecretKeys([NEW])
        signature, token = new.sign(KEY, DATA), new.encrypt("s3cret")
        refusal(keys, KEY, DATA, signature)

        file.write_text(f"{NEW},{OLD}")

        keys.verify(KEY, DATA, signature)
        assert "s3cret" == keys.decrypt(token)
        assert keys.is_signed_with_first(signature)

    def test_new_first_key_is_used_from_the_next_refresh_on(self, keys: SecretKeys, file: Path) -> None:
        assert not keys.refresh()

        file.write_text(f"{NEW},{OLD}")

        assert keys.refresh()
        assert not keys.refresh()
        assert "s3cret" == SecretKeys([NEW]).decrypt(keys.encrypt("s3cret"))

    @pytest.mark.parametrize("content", ["", "no key", "NEW,no key"])
    def test_file_without_good_keys_changes_nothing(self, keys: SecretKeys, file: Path, content: str) -> None:
        file.write_text(content.replace("NEW", NEW))

        assert not keys.refresh()
        keys.verify(KEY, DATA, keys.sign(KEY, DATA))

    def test_file_of_bytes_or_none_changes_nothing(self, keys: SecretKeys, file: Path) -> None:
        file.write_bytes(b"\xff\xfe")
        assert not keys.refresh()
        file.unlink()
        assert not keys.refresh()
        assert "x" == keys.decrypt(keys.encrypt("x"))

    def test_error_names_the_file_and_not_the_key(self, file: Path) -> None:
        with pytest.raises(InvalidError) as caught:
            SecretKeys([OLD, "hunter2hunter2"], file)

        assert f"{file}[1]" == caught.value.field
        assert "hunter2" not in str(caught.value)


def test_keys_are_separated_by_commas() -> None:
    assert ["a", "b"] == split_keys(" a ,\nb,,")
