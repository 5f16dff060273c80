"""The values that earlier versions stored in `PLANS` and `RUNS` are read and written with every field as it was."""

import msgspec
import pytest
from msgspec import Struct

from exporter.exports.progress import ExportProgress
from exporter.exports.progress_store import with_window
from exporter.exports.run_store import Run

AT = "2026-11-22T12:00:07.250000Z"
PROGRESS = (
    f'{{"cursor":4,"slot_at":"{AT}","named_at":"{AT}",'
    f'"claim":{{"run_id":"r1","owner":"o","trigger":"manual","started_at":"{AT}","until":"{AT}"}},'
    f'"plan":{{"key":"raw/x.csv.gz","named_at":"{AT}","revision":3,"location":"s3 b raw",'
    '"selection":{"data":"clicks","affiliates":[4]},"first_sequence":5,"last_sequence":9,'
    '"rows_in":2,"rows_out":1,"rows_dropped":0,"size_bytes":100,"sha256":"ab"},'
    f'"failing":{{"code":"denied","since":"{AT}"}}}}'
)
RUN = (
    '{"id":"r1","app_key":"shop","export_id":"clicks","state":"failed","trigger":"schedule",'
    f'"started_at":"{AT}","finished_at":"{AT}","first_sequence":5,"last_sequence":9,'
    '"rows_in":2,"rows_out":1,"rows_filtered":1,"size_bytes":100,'
    '"files":[{"key":"raw/x.csv.gz","size_bytes":100,"rows":1,"first_sequence":5,"last_sequence":9}],'
    '"attempts":2,"error":{"code":"denied","message":"no"}}'
)


@pytest.mark.parametrize(("stored", "type_"), [(PROGRESS, ExportProgress), (RUN, Run)])
def test_value_of_an_earlier_version_keeps_every_field(stored: str, type_: type[Struct]) -> None:
    value = msgspec.json.decode(stored, type=type_)

    assert stored == msgspec.json.encode(value).decode()


def test_plan_of_an_earlier_version_is_a_window_of_one_file() -> None:
    progress = with_window(msgspec.json.decode(PROGRESS, type=ExportProgress))

    assert progress.plan is None
    assert progress.window is not None
    (file,) = progress.window.files
    assert ("raw/x.csv.gz", "clicks", 1, 100, "ab") == (file.key, file.part, file.rows, file.size_bytes, file.sha256)
    content = progress.window.content
    assert ("affise", "csv.gz", (4,)) == (content.layout, content.format, content.selection.affiliates)
    assert (5, 9, 2, 1) == (
        progress.window.first_sequence,
        progress.window.last_sequence,
        progress.window.rows_in,
        progress.window.rows_out,
    )
