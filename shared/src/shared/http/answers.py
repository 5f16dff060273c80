"""Answers of HTTP: JSON, and the one error body."""

import io
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from aiohttp import web

from shared.config.secret import enc_hook_masked
from shared.contracts.connection_report import ConnectionFailedError
from shared.errors import MillraceError
from shared.http.openapi import STATUS
from shared.http.unpacking import CODINGS, UnsupportedEncodingError

ONE_PIECE: Final = 256 << 10
"""Bytes of an answer that is written in one piece."""


def json_response(answer: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer with a body of JSON; its secrets are masked."""
    encoded = msgspec.json.encode(answer, enc_hook=enc_hook_masked)
    # aiohttp sends a file in pieces of 64 KiB, and bytes in one.
    body = io.BytesIO(encoded) if len(encoded) > ONE_PIECE else encoded
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


def error_response(error: MillraceError) -> web.Response:
    """The one error body: `{"error": {"code", "message", "field"?, "report"?}}`."""
    body: dict[str, Any] = {"code": error.code, "message": _encodable(error.message)}
    if error.field is not None:
        body["field"] = _encodable(error.field)
    headers = {}
    status = STATUS[error.code]
    if isinstance(error, UnsupportedEncodingError):
        status, headers["Accept-Encoding"] = 415, ", ".join(CODINGS)
    if isinstance(error, ConnectionFailedError):
        status, body["report"] = 422, error.report
    if error.retry_after_s is not None or error.retryable:
        headers["Retry-After"] = str(max(1, round(error.retry_after_s or 1)))
    if error.code == "unauthenticated":
        headers["WWW-Authenticate"] = "Bearer"
    return json_response({"error": body}, status=status, headers=headers)


def _encodable(text: str) -> str:
    """The text as UTF-8 can hold it: what repeats a header has lone surrogates for bytes that are no UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def http_exception_response(error: web.HTTPException) -> web.Response:
    """The one error body for what aiohttp refuses by itself."""
    code = "not_found" if error.status == 404 else "invalid"
    # A 405 has to say what is allowed (RFC 9110, 15.5.6).
    headers = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
    return json_response({"error": {"code": code, "message": error.reason}}, status=error.status, headers=headers)
