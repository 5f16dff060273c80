"""The records that earlier versions stored in `MEDIA` are read and written with every field as it was."""

import msgspec

from storage.uploads.records import ObjectRecord

AT = "2026-11-22T12:00:07.250000Z"


def test_record_of_an_earlier_version_keeps_every_field() -> None:
    original = (
        '{"key":"o","url":"https://cdn/o","content_type":"image/jpeg","size_bytes":7,"sha256":"ab",'
        '"width":4,"height":3}'
    )
    stored = (
        f'{{"id":"file-{"a" * 32}","app_key":"shop","kind":"file",'
        f'"home":{{"provider":"amazon-storage","place":"s3://b","stored_at":"{AT}","original":{original},'
        f'"thumbnails":[{original}]}},'
        f'"former_homes":[{{"provider":"local","place":"local","stored_at":"{AT}","original":{original}}}]}}'
    )

    record = msgspec.json.decode(stored, type=ObjectRecord)

    assert stored == msgspec.json.encode(record).decode()
