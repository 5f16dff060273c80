"""Errors name the choices: of a Literal, an enumeration and a tag, wherever they stand."""

from enum import Enum
from typing import Any, Literal

import msgspec
import pytest
from msgspec import Struct

from shared.config.secret import Secret
from shared.contracts.choices import choices_at
from shared.contracts.messages import decode
from shared.errors import InvalidError
from shared.runtime.settings import Settings, read_settings


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Bucket(Struct, tag="s3", tag_field="type", forbid_unknown_fields=True):
    key: Secret | None = None


class Folder(Struct, tag="gateway", tag_field="type", forbid_unknown_fields=True):
    level: Literal[1, 2] = 1


class Form(Struct, forbid_unknown_fields=True):
    trigger: Literal["EVENT", "CLICK", "GEOFENCE"] = "EVENT"
    destination: Bucket | Folder = msgspec.field(default_factory=Folder)
    colours: tuple[Colour, ...] = ()
    by_name: dict[str, Colour] = {}
    of_colour: dict[Literal["u", "v"], int] = {}
    maybe: Literal["a", "b"] | None = None
    either: Literal["a"] | int = 1
    size: int = 0


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"trigger": "EVNT"}, "trigger", "Expected CLICK, EVENT or GEOFENCE, got 'EVNT'"),
        ({"trigger": 3}, "trigger", "Expected CLICK, EVENT or GEOFENCE, got `int`"),
        ({"trigger": None}, "trigger", "Expected CLICK, EVENT or GEOFENCE, got `null`"),
        ({"destination": {"type": "s4"}}, "destination.type", "Expected s3 or gateway, got 's4'"),
        ({"destination": {"type": 1}}, "destination.type", "Expected s3 or gateway, got another type"),
        (
            {"destination": {}},
            "destination.type",
            "Object missing required field `type`: expected s3 or gateway",
        ),
        ({"destination": {"type": "gateway", "level": 3}}, "destination.level", "Expected 1 or 2, got 3"),
        ({"colours": ["red", "green"]}, "colours[1]", "Expected red or blue, got 'green'"),
        ({"by_name": {"x": "green"}}, "by_name[...]", "Expected red or blue, got 'green'"),
        ({"of_colour": {"w": 1}}, "of_colour", "Expected u or v, got 'w'"),
        ({"maybe": "c"}, "maybe", "Expected a, b or null, got 'c'"),
        ({"trigger": "x" * 1_000_000}, "trigger", f"Expected CLICK, EVENT or GEOFENCE, got '{'x' * 63}…"),
        ({"size": "1"}, "size", "Expected `int`, got `str`"),
        ({"either": []}, "either", "Expected `int | str`, got `array`"),
        ({"sise": 1}, "sise", "Object contains unknown field `sise`"),
        ([], None, "Expected `object`, got `array`"),
    ],
)
def test_error_names_the_choices(body: Any, field: str | None, message: str) -> None:
    with pytest.raises(InvalidError) as caught:
        decode(msgspec.json.encode(body), Form)

    assert (message, field) == (caught.value.message, caught.value.field)


def test_path_that_leads_nowhere_has_no_choices() -> None:
    for path in ("$.nothing", "$.trigger.more", "$[0]", "$.colours", "", "$.by_name.x"):
        assert () == choices_at(Form, path)


def test_setting_names_the_choices_and_not_the_value() -> None:
    with pytest.raises(InvalidError) as caught:
        read_settings(Settings, {"MILLRACE_LOG_LEVEL": "hunter2"})

    assert "Expected debug, error, info or warning" == caught.value.message
    assert "MILLRACE_LOG_LEVEL" == caught.value.field
