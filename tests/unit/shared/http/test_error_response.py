"""The one error body, whatever the error repeats of a request."""

import json

from shared.errors import InvalidError
from shared.http.answers import error_response


def test_bytes_of_a_header_that_are_no_utf8_are_told_escaped() -> None:
    # As aiohttp decodes them.
    text = b"caf\xe9".decode(errors="surrogateescape")

    response = error_response(InvalidError(f"found {text}", field=text))

    assert isinstance(response.body, bytes)
    told = json.loads(response.body)["error"]
    assert (400, "found caf\\udce9", "caf\\udce9") == (response.status, told["message"], told["field"])
