"""Every line has an action; no line has a secret."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import structlog
from msgspec import Struct

from shared.config.secret import Secret
from shared.runtime import logs
from shared.runtime.logs import RECENT_FORMS, Redactor

VALUE = "wJalrXUtnFEMI/K7MDENG+bPxRfiCY"


@pytest.fixture
def redactor(monkeypatch: pytest.MonkeyPatch) -> Redactor:
    """A fresh redactor for the process: values that a test registers end with the test."""
    fresh = Redactor()
    monkeypatch.setattr(logs, "redactor", fresh)
    return fresh


@pytest.fixture
def stream(redactor: Redactor) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logs.configure(service="hooks", level="info", format="json", stream=stream)
    yield stream
    logging.captureWarnings(False)


@pytest.fixture
def log() -> Any:
    return structlog.get_logger()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_its_action_time_level_and_service(stream: io.StringIO, log: Any) -> None:
    log.info("hook_saved", message="A hook is saved.", hook_id="h1")

    [line] = lines(stream)
    assert ["timestamp", "level", "service", "action", "message", "hook_id"] == list(line)
    assert ("info", "hooks", "hook_saved", "A hook is saved.") == tuple(list(line.values())[1:5])
    assert line["timestamp"].endswith("Z")


def test_a_line_under_the_level_is_not_written(stream: io.StringIO, log: Any) -> None:
    log.debug("hook_read")
    logging.getLogger("nats").debug("ping")

    assert "" == stream.getvalue()


def test_a_second_set_up_replaces_the_first(stream: io.StringIO, log: Any) -> None:
    later = io.StringIO()
    logs.configure(service="storage", level="info", format="json", stream=later)

    log.info("ready")
    logging.getLogger("nats").warning("reconnecting")

    assert "" == stream.getvalue()
    assert ["ready", "library_log"] == [line["action"] for line in lines(later)]


def test_the_standard_library_takes_the_same_way(stream: io.StringIO) -> None:
    logging.getLogger("nats.aio").warning("server %s is gone", "n1")

    [line] = lines(stream)
    assert "library_log" == line["action"]
    assert "server n1 is gone" == line["message"]
    assert "nats.aio" == line["logger"]
    assert "hooks" == line["service"]


def test_warnings_become_lines(stream: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("careful", UserWarning, stacklevel=1)
        logging.captureWarnings(False)

    [line] = lines(stream)
    assert "py.warnings" == line["logger"]
    assert "careful" in line["message"]


@pytest.mark.parametrize("name", ["botocore.parsers", "aiobotocore", "asyncssh.sftp"])
def test_libraries_that_print_what_they_send_are_kept_quiet(redactor: Redactor, name: str) -> None:
    stream = io.StringIO()
    logs.configure(service="hooks", level="debug", format="json", stream=stream)

    logging.getLogger(name).debug("Response body: <SecretAccessKey>abc</SecretAccessKey>")

    assert "" == stream.getvalue()


@pytest.mark.parametrize(
    "name", ["secret", "secret_key", "Password", "api-key", "X-Api-Key", "Authorization", "access_token", "nats_seed"]
)
def test_a_key_with_a_secrets_name_is_masked(stream: io.StringIO, log: Any, name: str) -> None:
    log.info("connector_saved", **{name: "hunter2"})
    log.info("connector_saved", settings={"deep": [{name: {"even": "hunter2"}}]})

    first, second = lines(stream)
    assert "***" == first[name]
    assert "***" == second["settings"]["deep"][0][name]
    assert "hunter2" not in stream.getvalue()


def test_keys_that_are_no_secret_stay(stream: io.StringIO, log: Any) -> None:
    log.info("object_stored", key="a/b.png", app_key="shop", partition_key="u1", password=None)

    [line] = lines(stream)
    assert ("a/b.png", "shop", "u1", None) == (
        line["key"],
        line["app_key"],
        line["partition_key"],
        line["password"],
    )


class Connector(Struct):
    region: str
    password: str
    key: Secret


@dataclass
class Login:
    user: str
    password: str


def test_a_secret_inside_an_object_is_masked(stream: io.StringIO, log: Any) -> None:
    connector = Connector("eu-west-1", "hunter2", Secret("hunter3"))
    log.info("connector_saved", value=Secret("hunter4"), connector=connector, login=Login("ann", "hunter5"))

    [line] = lines(stream)
    assert "***" == line["value"]
    assert {"region": "eu-west-1", "password": "***", "key": "***"} == line["connector"]
    assert {"user": "ann", "password": "***"} == line["login"]


@pytest.mark.parametrize(
    "text",
    [
        f"the key is {VALUE}.",
        "GET /x?key=wJalrXUtnFEMI%2FK7MDENG%2BbPxRfiCY",
        f"{VALUE}{VALUE}",
    ],
)
def test_a_registered_value_is_masked_wherever_it_stands(
    stream: io.StringIO, redactor: Redactor, log: Any, text: str
) -> None:
    redactor.add(VALUE)

    log.info("called", message=text, nested={"list": [text, text.encode()], text: 1}, error=ValueError(text))
    logging.getLogger("nats").warning("sent %s", text)

    assert 2 == len(lines(stream))
    assert "FEMI" not in stream.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_registered_value_is_masked_in_a_traceback(redactor: Redactor, log: Any, form: Any) -> None:
    stream = io.StringIO()
    logs.configure(service="hooks", level="info", format=form, stream=stream)
    redactor.add(VALUE)

    try:
        raise ValueError(f"no such key: {VALUE}")
    except ValueError as error:
        log.exception("failed")
        log.error("failed", exc_info=error)
        logging.getLogger("nats").exception("failed")

    assert 3 == stream.getvalue().count("ValueError: no such key: ***")
    assert VALUE not in stream.getvalue()


def test_a_multi_line_secret_is_masked_line_by_line(redactor: Redactor) -> None:
    redactor.add("-----BEGIN KEY-----\nAAAAB3NzaC1yc2EAAAADAQAB\nBBBBB3NzaC1yc2EAAAADAQAB\n-----END KEY-----")

    masked = redactor.text("line BBBBB3NzaC1yc2EAAAADAQAB of it")

    assert "line *** of it" == masked


def test_secrets_of_forms_are_masked_until_many_others_have_come(redactor: Redactor) -> None:
    redactor.add_form(VALUE)
    assert "***" == redactor.text(VALUE)

    for number in range(3 * RECENT_FORMS):
        redactor.add_form(f"another secret {number}\n" * 1000)

    assert VALUE == redactor.text(VALUE)


def test_a_secret_of_very_many_lines_is_masked_by_its_first_ones(redactor: Redactor) -> None:
    value = "\n".join(f"a line of secrets {number:05}" for number in range(50_000))

    redactor.add_form(value)

    assert "***" == redactor.text("a line of secrets 00001")
    assert "a line of secrets 40000" == redactor.text("a line of secrets 40000")
    assert "***" == redactor.text(value)


def test_a_secret_masks_no_name_of_ours(stream: io.StringIO, redactor: Redactor, log: Any) -> None:
    for secret in ("completed", "timestamp", "run_ended", "victim"):
        redactor.add_form(secret)

    log.info("run_ended", app_key="victim", state="completed", note="it is completed")

    [line] = lines(stream)
    assert ("run_ended", "victim", "completed", "it is ***") == (
        *(line[key] for key in ("action", "app_key", "state", "note")),
    )
    assert "timestamp" in line


def test_a_short_value_is_not_registered(redactor: Redactor) -> None:
    redactor.add("abc")
    redactor.add("")

    assert "abc" == redactor.text("abc")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Authorization: Bearer abcdefghijklmnop.q-r", "Authorization: Bearer ***"),
        ("nats://ann:hunter2@10.0.0.1:4222", "nats://ann:***@10.0.0.1:4222"),
        ("expected a bearer token", "expected a bearer token"),
        ("http://127.0.0.1:8080/a", "http://127.0.0.1:8080/a"),
    ],
)
def test_secrets_known_by_their_surroundings_are_masked(redactor: Redactor, text: str, masked: str) -> None:
    assert masked == redactor.text(text)


@pytest.mark.parametrize("value", [b"\xff\x00", "\udcff.csv", 1 << 70, float("nan"), {1: object}, {"a", "b"}])
def test_no_value_makes_a_line_fail(stream: io.StringIO, log: Any, value: Any) -> None:
    log.info("odd", value=value)

    assert 1 == len(lines(stream))


def test_the_console_is_for_people(redactor: Redactor, log: Any) -> None:
    stream = io.StringIO()
    logs.configure(service="hooks", level="info", format="console", stream=stream)

    log.info("hook_saved", hook_id="h1")

    assert "hook_saved" in stream.getvalue()
    assert "hook_id=h1" in stream.getvalue()
