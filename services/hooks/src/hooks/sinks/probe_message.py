"""The message that Test Connection sends. It is marked, so that its readers can leave it out."""

import uuid
from typing import Final

import msgspec

TEST_SCHEMA: Final = "millrace.test.v1"
"""The value of `schema`, which is `hook.event.v1` in a record."""


def probe_message() -> tuple[str, bytes]:
    """A unique id, and the JSON message that holds it."""
    name = str(uuid.uuid4())
    data = {"schema": TEST_SCHEMA, "id": name, "message": "A connection test of Millrace. Leave it out."}
    return name, msgspec.json.encode(data)
