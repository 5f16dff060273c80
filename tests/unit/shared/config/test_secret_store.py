"""A secret goes in and never comes out, at rest it is encrypted, and keys can be changed."""

import copy
import json
import pickle
from typing import Any, cast

import msgspec
import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from shared.config.secret import Secret, dec_hook, enc_hook_masked, merge_masked
from shared.config.secret_keys import generate_key
from shared.config.secret_store import SecretStore
from shared.errors import InvalidError

VALUE = "wJalrXUtnFEMI/K7MDENG"


class Proxy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    user: str
    password: Secret | None = None


class Kinesis(Struct, frozen=True, kw_only=True, tag="kinesis", tag_field="type", forbid_unknown_fields=True):
    region: str
    secret_key: Secret
    token: Secret | None = None
    proxy: Proxy | None = None


class Other(Struct, frozen=True, kw_only=True, tag="other", tag_field="type", forbid_unknown_fields=True):
    region: str
    secret_key: Secret


@pytest.fixture
def store() -> SecretStore:
    return SecretStore([generate_key()])


KINESIS = Kinesis(region="eu-west-1", secret_key=Secret(VALUE), proxy=Proxy(user="ann", password=Secret("hunter22")))


class TestSecret:
    def test_a_secret_is_shown_only_by_an_explicit_call(self) -> None:
        secret = Secret(VALUE)

        shown = [
            repr(secret),
            str(secret),
            f"{secret}",
            f"{secret!r:>30}",
            f"{secret:>30}",
            "".join(map(str, [secret])),
            repr([secret]),
        ]

        assert VALUE == secret.reveal()
        assert [] == [text for text in shown if VALUE in text]
        assert not hasattr(secret, "__dict__")

    def test_it_is_compared_by_its_value(self) -> None:
        assert Secret("a") == Secret("a")
        assert Secret("a") != Secret("b")
        assert Secret("a") != "a"
        assert 1 == len({Secret("a"), Secret("a")})

    def test_an_empty_one_is_false(self) -> None:
        assert not Secret("")
        assert Secret("a")

    def test_it_cannot_be_pickled_but_copied(self) -> None:
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(Secret(VALUE))

        assert Secret(VALUE) == copy.deepcopy({"key": Secret(VALUE)})["key"]
        assert Secret(VALUE) == copy.copy(Secret(VALUE))


class TestHooks:
    def test_a_field_decodes_from_a_string(self) -> None:
        decoded = msgspec.json.decode(b'{"type":"other","region":"r","secret_key":"s"}', type=Other, dec_hook=dec_hook)

        assert Other(region="r", secret_key=Secret("s")) == decoded

    @pytest.mark.parametrize("value", ["3", "null", '"***"'])
    def test_anything_else_is_refused_with_its_path(self, value: str) -> None:
        body = f'{{"type":"other","region":"r","secret_key":{value}}}'.encode()

        with pytest.raises(msgspec.ValidationError, match=r"Expected .* at `\$\.secret_key`"):
            msgspec.json.decode(body, type=Other, dec_hook=dec_hook)

    def test_json_shows_a_mask_unless_the_secret_is_empty(self) -> None:
        shown = msgspec.json.encode([Secret(VALUE), Secret("")], enc_hook=enc_hook_masked)

        assert b'["***",""]' == shown

    def test_other_types_are_not_theirs(self) -> None:
        with pytest.raises(NotImplementedError):
            enc_hook_masked(object())
        with pytest.raises(NotImplementedError):
            dec_hook(complex, "1")


class TestAtRest:
    def test_what_was_sealed_comes_back(self, store: SecretStore) -> None:
        sealed = store.encode_sealed(KINESIS)

        assert KINESIS == store.decode_sealed(sealed, Kinesis)

    def test_nothing_of_a_secret_lies_in_the_bytes(self, store: SecretStore) -> None:
        sealed = store.encode_sealed(KINESIS)

        raw = json.loads(sealed)
        assert raw["secret_key"].startswith("fernet:")
        assert raw["proxy"]["password"].startswith("fernet:")
        assert "eu-west-1" == raw["region"]
        assert VALUE.encode() not in sealed
        assert b"hunter22" not in sealed

    @given(st.text())
    def test_any_text_can_be_a_secret(self, text: str) -> None:
        store = SecretStore([generate_key()])
        value = Other(region="r", secret_key=Secret(text))

        assert text == store.decode_sealed(store.encode_sealed(value), Other).secret_key.reveal()

    def test_a_union_is_decoded_by_its_tag(self, store: SecretStore) -> None:
        sealed = store.encode_sealed(KINESIS)

        decoded = store.decode_sealed(sealed, cast(type[Struct], Kinesis | Other))

        assert KINESIS == decoded

    def test_a_missing_key_is_reported_with_the_field_and_without_the_value(self, store: SecretStore) -> None:
        sealed = SecretStore([generate_key()]).encode_sealed(KINESIS)

        with pytest.raises(InvalidError, match="cannot be decrypted with any of the configured keys") as caught:
            store.decode_sealed(sealed, Kinesis)

        assert "secret_key" == caught.value.field
        assert "gAAAA" not in str(caught.value)

    def test_a_nested_field_is_reported_with_its_path(self, store: SecretStore) -> None:
        raw = json.loads(store.encode_sealed(KINESIS))
        raw["proxy"]["password"] = "fernet:gAAAAAB"

        with pytest.raises(InvalidError) as caught:
            store.decode_sealed(json.dumps(raw).encode(), Kinesis)

        assert "proxy.password" == caught.value.field

    def test_a_plain_secret_at_rest_is_refused(self, store: SecretStore) -> None:
        with pytest.raises(InvalidError, match="encrypted") as caught:
            store.decode_sealed(b'{"type":"other","region":"r","secret_key":"plain-text"}', Other)

        assert "secret_key" == caught.value.field
        assert "plain-text" not in str(caught.value)

    @pytest.mark.parametrize("raw", [b"{", b"\xff", b'{"type":"other"}', b'{"type":"other","region":1}'])
    def test_data_that_does_not_decode_is_an_invalid_error(self, store: SecretStore, raw: bytes) -> None:
        with pytest.raises(InvalidError):
            store.decode_sealed(raw, Other)


class TestKeys:
    def test_every_key_decrypts_and_the_first_encrypts(self) -> None:
        old_key, new_key = generate_key(), generate_key()
        sealed = SecretStore([old_key]).encode_sealed(KINESIS)
        both = SecretStore([new_key, old_key])

        assert KINESIS == both.decode_sealed(sealed, Kinesis)
        assert KINESIS == SecretStore([new_key]).decode_sealed(both.encode_sealed(KINESIS), Kinesis)

    def test_rekey_moves_every_secret_to_the_first_key(self) -> None:
        old_key, new_key = generate_key(), generate_key()
        sealed = SecretStore([old_key]).encode_sealed(KINESIS)
        both = SecretStore([new_key, old_key])

        rekeyed, lost = both.rekey(sealed)

        assert KINESIS == SecretStore([new_key]).decode_sealed(rekeyed, Kinesis)
        assert list(json.loads(sealed)) == list(json.loads(rekeyed))
        assert not lost

    def test_rekey_changes_nothing_where_the_first_key_encrypted_all(self) -> None:
        key = generate_key()
        sealed, plain = SecretStore([key]).encode_sealed(KINESIS), b'{"name": "no secrets here","n":[1,2.5,null]}'

        assert (sealed, ()) == SecretStore([key, generate_key()]).rekey(sealed)
        assert (plain, ()) == SecretStore([key]).rekey(plain)

    def test_rekey_finds_secrets_in_lists(self) -> None:
        old_key, new_key = generate_key(), generate_key()
        token = Fernet(old_key).encrypt(b"x").decode()
        raw = json.dumps({"hooks": [{"key": f"fernet:{token}"}]}).encode()

        rekeyed, _ = SecretStore([new_key, old_key]).rekey(raw)

        moved = json.loads(rekeyed)["hooks"][0]["key"].removeprefix("fernet:")
        assert b"x" == Fernet(new_key).decrypt(moved)

    def test_rekey_names_what_no_key_decrypts_and_moves_the_rest(self) -> None:
        old_key, new_key = generate_key(), generate_key()
        raw = json.loads(SecretStore([old_key]).encode_sealed(KINESIS))
        raw["region"] = "fernet:a name that a tenant chose"

        rekeyed, lost = SecretStore([new_key, old_key]).rekey(json.dumps(raw).encode())

        assert ("region",) == lost
        assert raw["region"] == json.loads(rekeyed)["region"]
        assert KINESIS.secret_key == SecretStore([new_key]).decode_sealed(rekeyed, Kinesis).secret_key

    def test_entry_is_shown_to_an_operator_without_its_secrets(self, store: SecretStore) -> None:
        shown = store.mask_sealed(store.encode_sealed(KINESIS))

        assert ["***", "***"] == [json.loads(shown)["secret_key"], json.loads(shown)["proxy"]["password"]]
        assert "fernet:" not in shown

    @pytest.mark.parametrize("key", ["", "not a key", "QUJD", "x" * 43 + "é"])
    def test_a_key_that_is_none_is_refused_without_showing_it(self, key: str) -> None:
        with pytest.raises(InvalidError) as caught:
            SecretStore([generate_key(), key])

        assert "secret_keys[1]" == caught.value.field
        assert not key or key not in str(caught.value)

    def test_no_key_at_all_is_refused(self) -> None:
        with pytest.raises(InvalidError):
            SecretStore([])


class TestForms:
    def form(self, **fields: Any) -> dict[str, Any]:
        return {"type": "kinesis", "region": "eu-west-1", **fields}

    def test_get_shows_masks(self, store: SecretStore) -> None:
        shown = json.loads(store.encode_masked(KINESIS))

        assert "***" == shown["secret_key"]
        assert "***" == shown["proxy"]["password"]
        assert None is shown["token"]
        assert "eu-west-1" == shown["region"]

    def test_a_new_form_needs_its_secrets(self, store: SecretStore) -> None:
        with pytest.raises(InvalidError) as missing:
            store.from_form(self.form(), Kinesis, None)
        with pytest.raises(InvalidError) as masked:
            store.from_form(self.form(secret_key="***"), Kinesis, None)

        assert "secret_key" == missing.value.field
        assert "secret_key" == masked.value.field

    @pytest.mark.parametrize("sent", [{}, {"secret_key": "***"}])
    def test_a_secret_that_is_left_out_or_masked_is_kept(self, store: SecretStore, sent: dict[str, Any]) -> None:
        value = store.from_form(self.form(**sent), Kinesis, KINESIS)

        assert VALUE == value.secret_key.reveal()

    def test_what_get_showed_can_be_put_back(self, store: SecretStore) -> None:
        value = store.from_form(json.loads(store.encode_masked(KINESIS)), Kinesis, KINESIS)

        assert KINESIS == value

    def test_a_new_secret_replaces_the_old_one(self, store: SecretStore) -> None:
        value = store.from_form(self.form(secret_key="new"), Kinesis, KINESIS)

        assert "new" == value.secret_key.reveal()

    def test_null_removes_a_secret_that_may_be_absent(self, store: SecretStore) -> None:
        old = Kinesis(region="eu-west-1", secret_key=Secret("a"), token=Secret("b"))

        value = store.from_form(self.form(token=None), Kinesis, old)

        assert None is value.token

    def test_a_mask_without_a_stored_secret_is_refused(self, store: SecretStore) -> None:
        with pytest.raises(InvalidError) as caught:
            store.from_form(self.form(token="***"), Kinesis, KINESIS)

        assert "token" == caught.value.field

    def test_another_kind_takes_nothing_over(self, store: SecretStore) -> None:
        body = {"type": "other", "region": "r"}

        assert body == merge_masked(body, KINESIS)

    def test_the_body_is_not_changed_and_shows_no_secret_when_merged(self) -> None:
        body = self.form(proxy={"user": "ann"})

        merged = merge_masked(body, KINESIS)

        assert self.form(proxy={"user": "ann"}) == body
        assert VALUE not in repr(merged)
        assert "hunter22" not in repr(merged)

    def test_changed_fields_are_named(self, store: SecretStore) -> None:
        same = store.decode_sealed(store.encode_sealed(KINESIS), Kinesis)
        other = Kinesis(region="eu-west-1", secret_key=Secret("other"))

        assert () == store.changed_fields(KINESIS, same)
        assert ("secret_key", "proxy") == store.changed_fields(KINESIS, other)
        assert ("region", "secret_key", "token", "proxy") == store.changed_fields(None, other)
        assert ("region", "secret_key") == store.changed_fields(KINESIS, Other(region="r", secret_key=Secret("s")))

    @pytest.mark.parametrize("secret", [VALUE, "x" * 500], ids=len)
    @pytest.mark.parametrize("inside", [False, True], ids=["beside", "inside"])
    def test_error_repeats_no_secret_that_stands_in_a_wrong_field(
        self, store: SecretStore, secret: str, inside: bool
    ) -> None:
        proxy = {"user": "ann", "password": secret}
        form = {"type": secret, "region": "eu-west-1", "secret_key": VALUE if inside else secret}

        with pytest.raises(InvalidError) as raised:
            store.from_form(form | ({"proxy": proxy} if inside else {}), Kinesis, None)

        assert "type" == raised.value.field
        assert secret[:8] not in raised.value.message

    def test_error_in_a_form_of_many_levels_is_found_all_the_same(self, store: SecretStore) -> None:
        deep: dict[str, Any] = {}
        for _ in range(5000):
            deep = {"deep": deep}

        with pytest.raises(InvalidError) as raised:
            store.from_form({"type": "kinesis", "region": deep, "secret_key": VALUE}, Kinesis, None)

        assert "region" == raised.value.field
