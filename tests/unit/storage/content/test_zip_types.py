"""The type of a ZIP archive, from the names in it."""

import zipfile
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.content.content_types import BY_EXTENSION, ZIP, ContentType
from storage.content.zip_types import zip_type

CONTENT_TYPES = "[Content_Types].xml"


def archive(*names: str, mimetype: str = "") -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        if mimetype:
            file.writestr("mimetype", mimetype, zipfile.ZIP_STORED)
        for name in names:
            file.writestr(name, f"the content of {name} " * 300)
    return out.getvalue()


def kind_of(content: bytes) -> ContentType:
    return zip_type(BytesIO(content))


@pytest.mark.parametrize(
    ("content", "extension"),
    [
        (archive(CONTENT_TYPES, "_rels/.rels", "word/document.xml"), "docx"),
        # Office 365 names the main part like this, and other programs put the list of types last.
        (archive("_rels/.rels", "word/document2.xml", CONTENT_TYPES), "docx"),
        (archive(CONTENT_TYPES, "xl/workbook.xml"), "xlsx"),
        (archive(CONTENT_TYPES, "xl/workbook.xml", "xl/vbaProject.bin"), "xlsm"),
        (archive(CONTENT_TYPES, "xl/workbook.bin"), "xlsb"),
        (archive(CONTENT_TYPES, "ppt/presentation.xml"), "pptx"),
        (archive("pass.json", "icon.png", "manifest.json", "signature"), "pkpass"),
        (archive("content.xml", mimetype="application/vnd.oasis.opendocument.text"), "odt"),
        (archive("content.xml", mimetype="application/vnd.oasis.opendocument.spreadsheet"), "ods"),
        (archive("OEBPS/a.xhtml", mimetype="application/epub+zip"), "epub"),
        (archive("META-INF/MANIFEST.MF", "a/B.class"), "jar"),
        (archive("META-INF/MANIFEST.MF", "AndroidManifest.xml", "classes.dex"), "apk"),
        (archive("word/document.xml"), "zip"),
        (archive("pass.json", "manifest.json"), "zip"),
        (archive("content.xml", mimetype="application/vnd.oasis.opendocument.text-template"), "zip"),
        (archive("a.txt"), "zip"),
        (archive(), "zip"),
    ],
)
def test_names_tell_the_type(content: bytes, extension: str) -> None:
    assert BY_EXTENSION[extension] is kind_of(content)


def test_a_directory_that_is_not_where_it_should_be_is_no_error() -> None:
    content = archive(CONTENT_TYPES, "word/document.xml")

    assert ZIP is kind_of(content[:-10])
    assert ZIP is kind_of(b"x" * 7 + content)
    assert ZIP is kind_of(content[:-6] + b"\xff\xff\xff\xff" + content[-2:])


@given(st.binary(max_size=200), st.integers(0, 2000))
def test_any_bytes_have_a_type(noise: bytes, at: int) -> None:
    content = archive(CONTENT_TYPES, "word/document.xml")

    assert kind_of(content[:at] + noise + content[at:]) in {*BY_EXTENSION.values()}
    assert kind_of(noise) is ZIP
