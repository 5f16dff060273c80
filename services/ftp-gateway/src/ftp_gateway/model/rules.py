"""Rules by which a file is read: its kind, its encoding, the types of its attributes, and when it is complete."""

from typing import Literal

from msgspec import Struct

Encoding = Literal["utf-8", "utf-16-le", "utf-16-be", "windows-1254"]
Fallback = Literal["windows-1254"]


AttributeType = Literal["string", "number", "boolean", "date", "array"]


FileKind = Literal["push", "profile"]
Completion = Literal["settle", "rename", "done_marker", "row_count", "sha256"]
"""Evidence that an app asks for before a file counts as complete. See `processing.completion`."""


class FileRules(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Rules by which an app's files are read. Frozen when a file is claimed, so that a restart reads it alike.

    `attributes` empty accepts any attribute. `unknown_users` says whether a profile file may make new profiles.
    `all_or_nothing` refuses a file of which any row is bad.
    """

    settle_s: float = 5.0
    completion: Completion = "settle"
    fallback_encoding: Fallback | None = None
    attributes: dict[str, AttributeType] = {}
    timezone: str = "UTC"
    unknown_users: Literal["create", "reject"] = "create"
    all_or_nothing: bool = False
