"""
Completion of a file, and the checks of what its customer said about it. An app chooses one of five rules:

    settle         it was closed and left alone for a while, or renamed onto its final name
    rename         it was renamed onto its final name
    done_marker    `<name>.done` was uploaded after it
    row_count      as `settle`, and its last line is `#rows=N`, which is no row
    sha256         as `settle`, and `<name>.sha256` is there, in the form of sha256sum

A pulled file did not change on the customer's server, and was compared with the listing. It is complete with its
rename, and no marker or checksum comes with it. Of the rules only `row_count` holds for it.

A file that never becomes complete is visible for a day, then reported, not sent, and removed. So is a file under a name
that is never processed. Otherwise its customer would take the disappearance for success.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from ftp_gateway.model.rules import FileRules
from ftp_gateway.model.virtual_paths import COMPANIONS, Place, kind_of
from ftp_gateway.parsing.file_reader import Refusal
from ftp_gateway.spool.directories import ABANDONED_AFTER
from ftp_gateway.spool.store import Spool
from ftp_gateway.spool.upload import Upload
from ftp_gateway.spool.upload_info import CompletionProof
from shared.errors import ConflictError

MAX_CHECKSUM_BYTES = 64 << 10
TAIL_BYTES = 512

_CHECKSUM = re.compile(r"([0-9A-Fa-f]{64})(?:[ \t]+\*?(.*?))?\s*")
_TRAILER = re.compile(r'(?:^|[\r\n])("?#rows=(\d{1,12})"?[;\t ]*[\r\n]*)$')
_ENCODINGS = ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


class UploadReadiness(Struct, frozen=True):
    """
    Time from which a file may be processed, its rules, and its proof of completion.

    `missing`: there is no proof, and the file is reported instead.
    """

    at: datetime
    rules: FileRules
    companion: Upload | None = None
    missing: bool = False


class Trailer(Struct, frozen=True):
    """The last line of a file, with its number of rows. `start` is the offset of the line in bytes."""

    start: int
    rows: int


def readiness_of(upload: Upload, rules: FileRules, find: Callable[[Place], Upload | None]) -> UploadReadiness | None:
    """Return the time from which a file may be processed; None for no candidate, or a file that is being changed."""
    if upload.unfinished:
        return UploadReadiness(upload.changed_at + ABANDONED_AFTER, rules, missing=True)
    settled_at = upload.due_at(rules.settle_s)
    if settled_at is None:
        return None
    rule = rules.completion
    if upload.state != "closed" or rule in ("settle", "row_count"):
        return UploadReadiness(settled_at, rules)
    if upload.info.committed and upload.info.pulled:
        # The claim stores these rules: from then on nothing else is expected of the file.
        return UploadReadiness(settled_at, replace(rules, completion="rename"))
    if rule == "rename":
        if upload.info.committed:
            return UploadReadiness(settled_at, rules)
    else:
        place = upload.place
        companion = find(Place(place.app_key, place.folder, place.name + COMPANIONS[rule]))
        if companion is not None and companion.state == "closed" and not companion.busy:
            if rule == "sha256":
                return UploadReadiness(
                    max(settled_at, companion.changed_at + timedelta(seconds=rules.settle_s)), rules, companion
                )
            # An older marker says nothing about a later upload.
            if _closed_at(companion) >= _closed_at(upload):
                return UploadReadiness(companion.changed_at, rules, companion)
    return UploadReadiness(upload.changed_at + ABANDONED_AFTER, rules, missing=True)


def _closed_at(upload: Upload) -> datetime:
    return upload.info.closed_at or upload.info.opened_at


def proof_of(spool: Spool, upload: Upload, ready: UploadReadiness) -> CompletionProof:
    """Return the proof to store with the claim. Raises `ConflictError` when the companion was removed meanwhile."""
    if ready.companion is None:
        return CompletionProof(missing=ready.missing)
    try:
        text, _, _ = spool.read_ends(ready.companion, MAX_CHECKSUM_BYTES)
    except FileNotFoundError:
        raise ConflictError("the file's marker or checksum has been removed") from None
    return CompletionProof(companion=ready.companion.id, checksum=parse_checksum(text, upload.info.name))


def parse_checksum(data: bytes, name: str) -> str:
    """Return the hash of a name in a file of sha256sum, in lower case; empty when it has none."""
    for line in data.decode(errors="replace").removeprefix("\ufeff").splitlines():
        found = _CHECKSUM.fullmatch(line)
        if found and (not found[2] or found[2].replace("\\", "/").rpartition("/")[2] == name):
            return found[1].lower()
    return ""


def find_trailer(spool: Spool, upload: Upload, rules: FileRules) -> Trailer | None:
    """Return the trailer of a file whose app expects one."""
    if rules.completion != "row_count":
        return None
    head, tail, size_bytes = spool.read_ends(upload, TAIL_BYTES)
    return parse_trailer(head, tail, size_bytes)


def parse_trailer(head: bytes, tail: bytes, size_bytes: int) -> Trailer | None:
    """Return the trailer of a file with this start and this end."""
    encoding = next((name for mark, name in _ENCODINGS if head.startswith(mark)), "latin-1")
    if encoding != "latin-1" and (size_bytes - len(tail)) % 2:
        tail = tail[1:]
    found = _TRAILER.search(tail.decode(encoding, errors="replace"))
    return Trailer(size_bytes - len(found[1].encode(encoding)), int(found[2])) if found else None


async def refusal(
    rules: FileRules, proof: CompletionProof, place: Place, rows: int, trailer: Trailer | None, path: Path
) -> Refusal | None:
    """Return the refusal of a file that breaks its completion rule, else None. `rows` is the number found."""
    name = place.name
    if proof.missing:
        if kind_of(place) is None:
            ending = ".txt" if place.folder == "Profile" else ".csv or .txt"
            return _refused("incomplete", f"it was not renamed in 24 hours to a name that is processed, in {ending}")
        proof_name = {"rename": "a rename onto its name"}.get(
            rules.completion, f"{name}{COMPANIONS.get(rules.completion)}"
        )
        return _refused("incomplete", f"the app expects {proof_name} for a complete file, and none came in 24 hours")
    if rules.completion == "row_count" and trailer is None:
        return _refused("row_count", "expected a last line such as #rows=1000; the upload may have been cut off")
    if trailer is not None and trailer.rows != rows:
        return _refused("row_count", f"the last line says {trailer.rows} rows, and there are {rows}")
    if rules.completion == "sha256":
        return await _mismatch(proof, name, path)
    return None


async def _mismatch(proof: CompletionProof, name: str, path: Path) -> Refusal | None:
    if not proof.checksum:
        message = f"{name}.sha256 holds no line with 64 hexadecimal digits for this file, as sha256sum writes it"
        return _refused("sha256", message)
    digest = await asyncio.to_thread(_digest, path)
    if digest == proof.checksum:
        return None
    return _refused("sha256", f"the file's SHA-256 is {digest}, and {name}.sha256 says {proof.checksum}")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refused(reason: str, message: str) -> Refusal:
    return Refusal(reason, message, line=0)
