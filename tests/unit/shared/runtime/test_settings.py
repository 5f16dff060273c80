"""Settings from the environment."""

from pathlib import Path

import pytest

from shared.contracts.streams import DLQ, EVENTS, PROFILES, PUSH
from shared.errors import InvalidError
from shared.runtime.settings import Settings, child_environment, environment, read_settings, service_variables


def test_defaults_stand_when_nothing_is_set() -> None:
    assert read_settings(Settings, {"PATH": "/bin"}) == Settings()


def test_values_are_converted_to_their_types() -> None:
    settings = read_settings(
        Settings,
        {"MILLRACE_HTTP_PORT": "0", "MILLRACE_ALLOW_PRIVATE_ENDPOINTS": "true", "MILLRACE_EVENTS_MAX_AGE_H": "48"},
    )

    assert (settings.http_port, settings.allow_private_endpoints, settings.events_max_age_h) == (0, True, 48.0)


def test_proxies_and_authorities_of_other_programs_hold_where_none_of_ours_are_set() -> None:
    environ = {"HTTPS_PROXY": "http://a:1", "no_proxy": "x", "AWS_CA_BUNDLE": "/aws.pem", "SSL_CERT_FILE": "/ssl.pem"}
    theirs = Settings(https_proxy="http://a:1", no_proxy="x", ca_bundle="/aws.pem")

    assert theirs == read_settings(Settings, environ)
    assert "" == read_settings(Settings, environ | {"MILLRACE_HTTPS_PROXY": ""}).https_proxy
    assert "/ssl.pem" == read_settings(Settings, {"SSL_CERT_FILE": "/ssl.pem"}).ca_bundle


def test_a_value_may_lie_in_a_file(tmp_path: Path) -> None:
    seed = tmp_path / "seed"
    seed.write_text("SUAFOO\n")

    assert read_settings(Settings, {"MILLRACE_NATS_SEED_FILE": str(seed)}).nats_seed == "SUAFOO"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="No such file") as error:
        read_settings(Settings, {"MILLRACE_NATS_SEED_FILE": str(tmp_path / "none")})

    assert error.value.field == "MILLRACE_NATS_SEED_FILE"


def test_an_unknown_setting_is_refused_by_name() -> None:
    with pytest.raises(InvalidError) as error:
        read_settings(Settings, {"MILLRACE_NATS_ULR": "nats://x"})

    assert error.value.field == "MILLRACE_NATS_ULR"


class SftpSettings(Settings, frozen=True, kw_only=True):
    """Settings of a service that has the prefix of the table to itself."""

    sftp_port: int = 2022


@pytest.mark.parametrize("variable", ["MILLRACE_SFTP_PORT", "MILLRACE_SFTP_PROT", "MILLRACE_STORAGE_LOCAL_FILE"])
def test_settings_of_a_service_are_passed_over_by_the_command_line(variable: str) -> None:
    assert read_settings(Settings, {variable: "1"}) == Settings()


def test_settings_of_another_service_are_passed_over_and_a_services_own_are_not() -> None:
    environ = {"MILLRACE_STORAGE_AVIF": "perhaps", "MILLRACE_SFTP_PORT": "22"}

    assert read_settings(SftpSettings, environ) == SftpSettings(sftp_port=22)
    for variable in ("MILLRACE_SFTP_PROT", "MILLRACE_SFTP_PROT_FILE", "MILLRACE_SFT_PORT", "MILLRACE_STORAGEAVIF"):
        with pytest.raises(InvalidError, match="there is no such setting") as error:
            read_settings(SftpSettings, environ | {variable: "22"})
        assert error.value.field == variable


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
        read_settings(Settings, {variable: value})

    assert error.value.field == variable
    assert value not in error.value.message.split("`")


def test_sizes_of_streams_and_buckets_can_be_set() -> None:
    settings = read_settings(
        Settings,
        {"MILLRACE_STREAM_MAX_BYTES": "PUSH=2147483648, PROFILES=1048576", "MILLRACE_EVENTS_MAX_BYTES": "9999999"},
    )

    limits = {spec.name: settings.limit_of(spec) for spec in (EVENTS, PUSH, PROFILES, DLQ)}

    assert limits == {"EVENTS": 9_999_999, "PUSH": 2 << 30, "PROFILES": 1 << 20, "DLQ": DLQ.max_bytes}


@pytest.mark.parametrize("value", ["PUSH", "PUSH=", "PUSH=1", "PUSHES=2147483648", "EVENTS=2147483648", "PUSH=1e12"])
def test_a_size_of_no_stream_or_of_no_bytes_is_refused(value: str) -> None:
    with pytest.raises(InvalidError, match=r"NAME=BYTES.* PUSH, PROFILE_UPDATES") as error:
        read_settings(Settings, {"MILLRACE_STREAM_MAX_BYTES": value})

    assert error.value.field == "MILLRACE_STREAM_MAX_BYTES"


def test_a_child_gets_the_passed_settings_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_LOG_LEVEL", "debug")
    monkeypatch.setenv("LANG", "C")

    child = child_environment(http_port=0, nats_url="nats://x")

    assert {name: value for name, value in child.items() if name.startswith("MILLRACE_")} == {
        "MILLRACE_HTTP_PORT": "0",
        "MILLRACE_NATS_URL": "nats://x",
    }
    assert child["LANG"] == "C"


def test_only_the_named_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE", "1")

    assert environment(("ONE", "NONE")) == {"ONE": "1"}


def test_settings_that_one_service_alone_reads_are_found_by_their_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("MILLRACE_SFTP_IDLE_S", "MILLRACE_STORAGE_LOCAL_FILE", "MILLRACE_HTTP_PORT", "SFTP_PORT"):
        monkeypatch.setenv(variable, "1")

    assert service_variables() == {"sftp_idle_s": "1", "storage_local_file": "1"}
