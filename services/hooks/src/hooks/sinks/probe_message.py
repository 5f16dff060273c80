"""What Test Connection sends: a message that says what it is, so that its readers can leave it out."""

import uuid
from typing import Final

import msgspec

TEST_SCHEMA: Final = "millrace.verbs.test.v1"
"""What stands where another record says `hook.event.v1`."""


def marked_message() -> tuple[str, bytes]:
    """An id that nothing else has, and the JSON with it."""
    name = str(uuid.uuid4())
    data = {"schema": TEST_SCHEMA, "id": name, "message": "A connection test of Millrace. Leave it out."}
    return name, msgspec.json.encode(data)
