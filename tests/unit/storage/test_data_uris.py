"""Base64 images in HTML: found wherever pages hold them, replaced by a URL, every other byte as it was."""

import base64
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import TooLargeError
from storage.data_uris import MAX_HTML_BYTES, MAX_IMAGES, DataUri, find_images, splice

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
GIF = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\xff\xff\x00\x00\x00!\xf9\x04\x01\x00\x00\x00\x00,"
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
# Bytes that need '+', '/' and '=' in Base64.
ODD = PNG + bytes([0xFB, 0xEF, 0xFF, 0xFE, 0x3E, 0x21])

URL = "https://cdn.example/a/b.png"
B64 = base64.b64encode(ODD).decode()
assert {"+", "/"} <= set(B64)
assert B64.endswith("=")


def uri(content: bytes, declared: str = "image/png") -> str:
    return f"data:{declared};base64,{base64.b64encode(content).decode()}"


def replaced(page: str) -> str:
    found = [image for image in find_images(page.encode()) if image.error is None]
    return splice(page.encode(), [(image, URL) for image in found]).decode()


@pytest.mark.parametrize(
    "template",
    [
        '<img src="{}">',
        "<img src='{}' alt=x>",
        "<img src={}>",
        "<img src={} alt=x>",
        '<IMG SRC = " {} ">',
        '<video poster="{}"></video>',
        '<img srcset="{} 1x, https://a.example/2.png 2x">',
        '<img srcset="https://a.example/1.png 1x,\n   {} 2x">',
        '<td background="{}">',
        '<div style="background:url({})">',
        "<div style=\"background:url('{}')\">",
        '<div style="background:url(&quot;{}&quot;)">',
        "<div style='background:url(&#39;{}&#39;)'>",
        "<style>.a{{background:#fff url( {} ) no-repeat}}</style>",
        '<svg><image href="{}"/><image xlink:href="{}"/></svg>',
        '<!--[if mso]><v:fill type="frame" src="{}" /><![endif]-->',
        '<template><img src="{}"></template>',
        "<noscript><img src='{}'></noscript>",
        '{{{{#if x}}}}<tr><td><img src="{}"></td></tr>{{{{/if}}}}',
        '<script>var a = "data:";</script><img src="{}">',
        '<!-- <script> --><img src="{}"><!-- </script> -->',
        '<p>our data: look at url("{}") here',
        '<div data-config="{{&quot;image&quot;:&quot;{}&quot;}}">',
        "{}",
    ],
)
def test_image_is_replaced_wherever_it_stands(template: str) -> None:
    image = uri(ODD)
    times = template.count("{}")

    page = template.format(*[image] * times)

    assert template.format(*[URL] * times) == replaced(page)


@pytest.mark.parametrize(
    "text",
    [
        f"data:image/png;base64,{B64}",
        f"DATA:image/png;BASE64,{B64}",
        f"data:image/png; base64,{B64}",
        f"data:image/png;charset=utf-8;base64,{B64}",
        f"data:image/jpg;base64,{B64}",
        f"data:application/octet-stream;base64,{B64}",
        f"data:;base64,{B64}",
        f"data:image/png;base64,{B64.rstrip('=')}",
        f"data:image/png;base64,{B64.replace('+', '-').replace('/', '_')}",
        f"data:image/png;base64,{quote(B64, safe='')}",
        f"data:image/png;base64,{B64.replace('+', '&#43;').replace('/', '&#x2F;').replace('=', '&equals;')}",
        "data:image/png;base64," + "\r\n".join(B64[at : at + 76] for at in range(0, len(B64), 76)),
        "data:image/png;base64," + "&#10;".join(B64[at : at + 76] for at in range(0, len(B64), 76)),
        f"data:image/png;base64,\n{B64}",
    ],
)
def test_image_is_read_however_it_is_written(text: str) -> None:
    page = f'<img src="{text}" alt="A &amp; B">'

    images = find_images(page.encode())

    assert [ODD] == [image.content for image in images]
    assert f'<img src="{URL}" alt="A &amp; B">' == replaced(page)


def test_declared_svg_is_an_image() -> None:
    assert f'<img src="{URL}">' == replaced(f'<img src="{uri(SVG, "image/svg+xml")}">')


@pytest.mark.parametrize(
    "page",
    [
        "",
        "no image here, only data: and base64, and data:,",
        '<a href="data:text/plain;base64,aGVsbG8=">',
        "<img src=\"data:image/svg+xml;utf8,<svg xmlns='http://www.w3.org/2000/svg'/>\">",
        f'<script>const pixel = "{uri(ODD)}";</script>',
        f'<SCRIPT type="text/template"><img src="{uri(ODD)}">',
        f'<p>metadata:image/png;base64,{B64}"',
    ],
)
def test_page_without_an_image_of_ours_stays_and_reports_nothing(page: str) -> None:
    assert [] == find_images(page.encode())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("data:image/png;base64,", "nothing after the comma"),
        ("data:image/png;base64,AAAAA", "not Base64"),
        ("data:image/png;base64,AA=AAA==", "not Base64"),
        ("data:image/png;base64,iVBO!Rw0KGgo", "breaks off"),
        (f"data:image/png;base64,{base64.b64encode(b'hello').decode()}", "no image"),
    ],
)
def test_corrupt_image_stays_and_is_reported_with_its_offset(text: str, reason: str) -> None:
    page = f'<p>ş</p><img src="{text}"><img src="{uri(GIF)}">'

    broken, whole = find_images(page.encode())

    assert page.encode().index(b"data:") == broken.start
    assert broken.error is not None
    assert reason in broken.error
    assert f'<p>ş</p><img src="{text}"><img src="{URL}">' == replaced(page)
    assert GIF == whole.content


def test_page_need_not_be_utf_8() -> None:
    page = b"<p>\xff\xfe\x00</p><img src='" + uri(ODD).encode() + b"'>\xe7"

    images = find_images(page)

    assert b"<p>\xff\xfe\x00</p><img src='" + URL.encode() + b"'>\xe7" == splice(page, [(images[0], URL)])


def test_too_many_images_are_refused() -> None:
    page = f'<img src="{uri(GIF)}">'.encode()

    assert MAX_IMAGES == len(find_images(page * MAX_IMAGES))
    with pytest.raises(TooLargeError, match="200"):
        find_images(page * (MAX_IMAGES + 1))


def test_too_long_a_page_is_refused() -> None:
    with pytest.raises(TooLargeError, match=str(MAX_HTML_BYTES)):
        find_images(b" " * (MAX_HTML_BYTES + 1))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece",
    [b"<!--", b"<script>", b"data:", b"(data:image/png;base64,", b'"data:a/b;base64,A ', b"&#3", b"data:a;base64"],
)
def test_hostile_page_takes_time_in_proportion_to_its_length(piece: bytes) -> None:
    page = piece * (400_000 // len(piece))

    try:
        find_images(page)
    except TooLargeError:
        assert b"image" in piece


FILLER = st.text(
    st.sampled_from("ab <>\"'()=;,:&%\\/\n\t-!ğ{}data:") | st.characters(exclude_categories=["Cs"]), max_size=40
)
DELIMITERS = [
    ('src="', '"'),
    ("src='", "'"),
    ("url(", ")"),
    ("src=", " "),
    ("url(&quot;", "&quot;)"),
    ('srcset="', ' 1x"'),
]


@st.composite
def pages(draw: st.DrawFn) -> tuple[str, list[tuple[str, bool]]]:
    """A page in pieces: (text, whether it is an image that must be replaced)."""
    pieces: list[tuple[str, bool]] = []
    for _ in range(draw(st.integers(0, 5))):
        before, after = draw(st.sampled_from(DELIMITERS))
        content = draw(st.sampled_from([PNG, GIF, b"\xff\xd8\xff"])) + draw(st.binary(max_size=60))
        pieces += [(f"<p>{draw(FILLER)}</p><i {before}", False), (uri(content), True), (f"{after}>", False)]
    return draw(FILLER).replace("<", ""), pieces


@given(pages())
def test_every_byte_but_the_images_stays_and_a_second_run_changes_nothing(
    page: tuple[str, list[tuple[str, bool]]],
) -> None:
    head, pieces = page
    html = head + "".join(text for text, _ in pieces)
    if "<script" in html.lower():
        return

    once = replaced(html)

    assert head + "".join(URL if image else text for text, image in pieces) == once
    assert once == replaced(once)


@given(st.binary(max_size=400))
def test_any_bytes_are_scanned_and_come_back_whole(content: bytes) -> None:
    images: list[DataUri] = find_images(content)

    kept = [(image, content[image.start : image.end].decode("latin-1")) for image in images if image.error is None]

    assert content == splice(content, [(image, text) for image, text in kept if text.isascii()])
