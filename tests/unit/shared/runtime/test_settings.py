"""Settings from the environment."""

from pathlib import Path

import pytest

from shared.errors import InvalidError
from shared.runtime.settings import Settings, child_environment, environment, read_settings


def test_defaults_stand_when_nothing_is_set() -> None:
    assert read_settings({"PATH": "/bin"}) == Settings()


def test_values_are_converted_to_their_types() -> None:
    settings = read_settings(
        {"MILLRACE_HTTP_PORT": "0", "MILLRACE_ALLOW_PRIVATE_ENDPOINTS": "true", "MILLRACE_EVENTS_MAX_AGE_H": "48"}
    )

    assert (settings.http_port, settings.allow_private_endpoints, settings.events_max_age_h) == (0, True, 48.0)


def test_a_value_may_lie_in_a_file(tmp_path: Path) -> None:
    seed = tmp_path / "seed"
    seed.write_text("SUAFOO\n")

    assert read_settings({"MILLRACE_NATS_SEED_FILE": str(seed)}).nats_seed == "SUAFOO"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="No such file") as error:
        read_settings({"MILLRACE_NATS_SEED_FILE": str(tmp_path / "none")})

    assert error.value.field == "MILLRACE_NATS_SEED_FILE"


def test_an_unknown_setting_is_refused_by_name() -> None:
    with pytest.raises(InvalidError) as error:
        read_settings({"MILLRACE_NATS_ULR": "nats://x"})

    assert error.value.field == "MILLRACE_NATS_ULR"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MILLRACE_HTTP_PORT", "many"),
        ("MILLRACE_HTTP_PORT", "70000"),
        ("MILLRACE_NATS_REPLICAS", "2"),
        ("MILLRACE_EVENTS_MAX_AGE_H", "24"),
        ("MILLRACE_LOG_FORMAT", "xml"),
    ],
)
def test_a_wrong_value_names_the_variable_and_never_shows_the_value(variable: str, value: str) -> None:
    with pytest.raises(InvalidError) as error:
        read_settings({variable: value})

    assert error.value.field == variable
    assert value not in error.value.message.split("`")


def test_a_child_gets_the_settings_it_is_given_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_LOG_LEVEL", "debug")
    monkeypatch.setenv("LANG", "C")

    child = child_environment(http_port=0, nats_url="nats://x")

    assert {name: value for name, value in child.items() if name.startswith("MILLRACE_")} == {
        "MILLRACE_HTTP_PORT": "0",
        "MILLRACE_NATS_URL": "nats://x",
    }
    assert child["LANG"] == "C"


def test_only_the_variables_asked_for_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE", "1")

    assert environment(("ONE", "NONE")) == {"ONE": "1"}
