"""
Events of a file on `ftp.file.<app>.<state>`. A terminal event is published once, also across a crash.
"""

from datetime import datetime

from ftp_gateway.model.outcome import FileOutcome
from ftp_gateway.model.rules import FileKind
from ftp_gateway.model.virtual_paths import kind_in
from ftp_gateway.parsing.file_reader import ValidationResult
from ftp_gateway.spool.upload import Upload
from ftp_gateway.spool.upload_info import UploadInfo
from shared.contracts.messages import FileChanged, encode
from shared.contracts.streams import FILES
from shared.contracts.subjects import FileState, ftp_file
from shared.messaging.bus import Bus
from shared.messaging.consumers import open_scan


async def last_sequence(bus: Bus, app_key: str, state: FileState) -> int:
    """Return the last sequence of the subject, 0 for none: the start of the search after a crash."""
    last = await bus.last_message(FILES, ftp_file(app_key, state))
    return last.sequence if last else 0


async def publish_outcome(bus: Bus, upload_id: str, info: UploadInfo, outcome: FileOutcome, at: datetime) -> None:
    """Publish the terminal event, unless the stream has it after `info.told_after`."""
    message_id = f"{upload_id}:{outcome.state}"
    if await _is_published(bus, info.app_key, outcome.state, message_id, info.told_after):
        return
    event = FileChanged(
        app_key=info.app_key,
        file_id=outcome.file_id,
        file_name=outcome.file_name,
        kind=outcome.kind,
        state=outcome.state,
        at=at,
        size_bytes=outcome.size_bytes,
        rows=outcome.rows,
        rows_ok=outcome.ok,
        rows_bad=outcome.failed,
        duplicates=outcome.duplicates,
        seconds=outcome.seconds,
        reason=outcome.reason,
    )
    await bus.publish(ftp_file(info.app_key, outcome.state), encode(event), message_id=message_id)


async def publish_received(
    bus: Bus, upload_id: str, info: UploadInfo, kind: FileKind, validation: ValidationResult, at: datetime
) -> None:
    """Publish that a file was claimed and validated; its rows follow. At least once."""
    event = FileChanged(
        app_key=info.app_key,
        file_id=validation.file_id,
        file_name=info.name,
        kind=kind,
        state="received",
        at=at,
        size_bytes=validation.size_bytes,
        rows=validation.ok + validation.bad,
        rows_ok=0 if validation.refused else validation.ok,
        rows_bad=validation.ok + validation.bad if validation.refused else validation.bad,
        duplicates=validation.duplicates,
    )
    await bus.publish(ftp_file(info.app_key, "received"), encode(event), message_id=_received_id(upload_id))


async def last_received(bus: Bus, app_key: str, upload_id: str) -> FileChanged | None:
    """Return the `received` event of an upload, if it is the last of its app: files of an app come one by one."""
    last = await bus.last_message(FILES, ftp_file(app_key, "received"))
    if last is None or last.headers.get("Nats-Msg-Id") != _received_id(upload_id):
        return None
    return bus.decoded(FILES, last.sequence, last.data, FileChanged)


def _received_id(upload_id: str) -> str:
    return f"{upload_id}:received"


async def publish_partial(bus: Bus, upload: Upload, at: datetime) -> None:
    """Publish that an upload broke off. At least once. It has no file id, because its content is not known yet."""
    place = upload.place
    event = FileChanged(
        app_key=place.app_key,
        file_id="",
        file_name=place.name,
        kind=kind_in(place.folder),
        state="partial",
        at=at,
        size_bytes=upload.size_bytes,
        reason="the connection was lost before the file was closed",
    )
    message_id = f"{upload.id}:partial:{upload.size_bytes}"
    await bus.publish(ftp_file(place.app_key, "partial"), encode(event), message_id=message_id)


async def _is_published(bus: Bus, app_key: str, state: FileState, message_id: str, after: int) -> bool:
    last = await last_sequence(bus, app_key, state)
    if last <= after:
        return False
    async with open_scan(bus, FILES, subject=ftp_file(app_key, state), start_sequence=after + 1) as scan:
        while True:
            for message in await scan.next(256):
                if message.headers.get("Nats-Msg-Id") == message_id:
                    return True
                if message.sequence >= last:
                    return False
