"""The message of Test Connection. Receivers leave it out by its schema, so that never changes."""

import msgspec

from hooks.sinks.probe_message import probe_message


def test_schema_is_the_one_that_receivers_know() -> None:
    name, data = probe_message()

    message = msgspec.json.decode(data)
    # Word by word: a tool that renames modules changed the text once, in the code and in its tests.
    assert ["millrace", "test", "v1"] == message["schema"].split(".")
    assert name == message["id"]
