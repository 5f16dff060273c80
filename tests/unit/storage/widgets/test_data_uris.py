"""Base64 images in HTML: found wherever pages hold them, replaced by a URL, every other byte as it was."""

import base64
import html
import re
import struct
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import TooLargeError
from storage.content.content_types import SVG as SVG_TYPE
from storage.content.content_types import WOFF2, ContentType
from storage.widgets.data_uris import MAX_FINDS, MAX_HTML_BYTES, MAX_IMAGES, DataUri, find_images, splice

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
GIF = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\xff\xff\x00\x00\x00!\xf9\x04\x01\x00\x00\x00\x00,"
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
FONT = b"wOF2OTTO" + struct.pack(">IHH", 100, 9, 0) + bytes(range(80))
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
        '<link rel="preload" as="image" imagesrcset="{} 1x">',
        "<video poster={} controls>",
        '<!--[if gte mso 9]><v:rect><v:fill src="{}" color="#fff"/></v:rect><![endif]-->',
        '<!--[if !mso]><!--><img src="{}"><!--<![endif]--><script>"data:"</script><img src="{}">',
        '<!--><script>"data:"</script><img src="{}">',
        '<template><style>a{{background:URL("{}")}}</style></template>',
        '<textarea><img src="{}"></textarea>',
        "{{{{^x}}}}{}{{{{/x}}}}",
        '<img src="{{{{#if a}}}}{}{{{{else}}}}{}{{{{/if}}}}">',
        "[image]({})",
        '<iframe srcdoc="<img src=&quot;{}&quot;>">',
        '<iframe srcdoc="&lt;div style=&quot;background:url(&amp;quot;{}&amp;quot;)&quot;&gt;">',
        '<iframe srcdoc="&lt;img src={}&gt;">',
        '<title>How to write <script></title><img src="{}">',
        '<textarea><script></textarea><img src="{}">',
        '<TITLE>a <script> b</TITLE ><img src="{}"><script>"data:"</script><img src="{}">',
        '<img alt="use <script> here" src="{}">',
        "<img title='1' alt='use <script> here' src='{}'>",
        '<style>/* <script> */ .a{{background:url({})}}</style><img src="{}">',
        '<title>no end <script>"data:"</script><img src="{}">',
        '<div data-w=\'"<img src=\\"{}\\">"\'>',
        '<div data-w=\'"<img src=\\\\\\"{}\\\\\\">"\'>',
        '<svg><use href="{}#i"/></svg><i style="background:url({}#a-b.c)">',
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
        f"data:image/png;charset=utf-8;name=a.png;base64,{B64}",
        f"data&#58;image&#47;png&#59;base64&#44;{B64}",
        "".join(char if char.isalnum() else f"&#x{ord(char):x};" for char in f"data:image/png;base64,{B64}"),
        f"data:image\\/png;base64,{B64}".replace("/", "\\/").replace("\\\\", "\\"),
        html.escape(f"data:image/png;base64,{B64.replace('+', '&#43;').replace('=', '&equals;')}"),
        f"data:image/png;base64,{quote(B64, safe='').replace('%', '&#37;')}",
        f"data:image/png;name=photo%20(1).png;base64,{B64}",
        f"data:image/png;name=Ay%C5%9Fe'nin.png;base64,{B64}",
        f"data:image/png;name=12:30.png;base64,{B64}",
        f"data:image/png;name={'%E6%97%A5' * 90}.png;base64,{B64}",
        f"data:image/png\\;base64\\,{B64}",
        "data:image/png;base64," + "".join(char if char.isalnum() else f"\\{char}" for char in B64),
        f"data:image/png;base64,{B64}&#10",
        f"data:image/png;base64,&#x0a {B64}&#x9",
    ],
)
def test_image_is_read_however_it_is_written(text: str) -> None:
    page = f'<img src="{text}" alt="A &amp; B">'

    images = find_images(page.encode())

    assert [ODD] == [image.content for image in images]
    assert f'<img src="{URL}" alt="A &amp; B">' == replaced(page)


@pytest.mark.parametrize(
    "escape", [lambda char: f"%{ord(char):02x}", lambda char: f"&#{ord(char)};", lambda char: f"&#{ord(char):07}"]
)
def test_escapes_are_read_wherever_a_long_text_is_cut(escape: Callable[[str], str]) -> None:
    content = PNG + bytes(range(256)) * 300
    text = base64.b64encode(content).decode()
    for shift in range(12):
        escaped = text[:shift] + re.sub("[A-Za-m]", lambda char: escape(char[0]), text[shift:])

        (image,) = find_images(f'<img src="data:image/png;base64,{escaped}">'.encode())

        assert image.error is None
        assert content == image.content


@pytest.mark.parametrize("before", range(0, 600, 7))
def test_image_is_found_wherever_a_long_page_is_cut(before: int) -> None:
    padding = "x" * (64 * 1024 - before)

    page = f"{padding} {uri(GIF)} <script>{uri(GIF)}</script> {padding} {uri(GIF)}"

    assert f"{padding} {URL} <script>{uri(GIF)}</script> {padding} {URL}" == replaced(page)


def test_declared_svg_is_an_image() -> None:
    # What a drawing holds is replaced with it, and not by itself.
    drawing = f"<svg xmlns='http://www.w3.org/2000/svg'><image href='{uri(ODD)}'/></svg>".encode()

    for content in (SVG, drawing):
        page = f'<img src="{uri(content, "image/svg+xml")}">'
        assert [SVG_TYPE] == [image.type for image in find_images(page.encode())]
        assert f'<img src="{URL}">' == replaced(page)


@pytest.mark.parametrize(
    "declared",
    ["font/woff2", "application/font-woff2", "application/x-font-ttf", "application/octet-stream", "text/plain", ""],
)
def test_font_is_detected_by_its_bytes(declared: str) -> None:
    template = "<style>@font-face {{font-family:a;src:url({}) format('woff2'),url('{}')}}</style>"
    page = template.format(uri(FONT, declared), uri(FONT, declared))

    fonts: list[ContentType | None] = [font.type for font in find_images(page.encode())]

    assert [WOFF2, WOFF2] == fonts
    assert template.format(URL, URL) == replaced(page)


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
        f"<img src=\"data:image/svg+xml;utf8,<svg><image href='{uri(ODD)}'/></svg>\">",
        f"<i style='background:url(\"data:image/svg+xml,<svg><image href={uri(ODD)} /></svg>\")'>",
        f"<i style='background:url(&quot;data:image/svg+xml;charset=utf-8,<image href={uri(ODD)} />&quot;)'>",
        f"<img src=data:image/svg+xml,%3Csvg%20href=%22{uri(ODD)}%22%3E>",
        f"<img srcset='data:image/svg+xml,%3Csvg%20href=%22{uri(ODD)}%22%3E 2x'>",
        f'<script type="text/x-template"><!-- <img src="{uri(ODD)}"> --></script>',
        f'<a href="data:application/pdf;base64,{base64.b64encode(b"%PDF-1.7 hello").decode()}">',
        f"<img src='data:image/png;name=Ay'se.png;base64,{B64}'>",
        f"<i style=background:url(data:image/png;name=a).png;base64,{B64})>",
        f"<img alt='it' title=s><script>'{uri(ODD)}'</script>",
        f'<title>a</title><script>"{uri(ODD)}"</script>',
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
        ("data:font/woff2;base64,AAAA", "neither an image nor a font"),
        ("data:application/x-font-ttf;base64,AAAA", "neither an image nor a font"),
        ("data:image/png;base64,&euro;", "breaks off"),
        ("data:image/png;base64,%41%42%43%ff", "not Base64"),
        (f"data:image/png;base64,{base64.b64encode(b'hello').decode()}", "neither an image nor a font"),
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


def test_text_of_a_page_within_a_page_that_cannot_be_read_is_reported() -> None:
    # Escaped once more than any page that is shown.
    page = f'<iframe srcdoc="<img src=&quot;{uri(FONT, "font/woff2")}&amp;amp;#43;AAAA&quot;>">'

    (image,) = find_images(page.encode())

    assert image.error is not None
    assert page == replaced(page)


def test_drawing_that_is_no_base64_ends_where_its_quotes_end() -> None:
    drawing = f"data:image/svg+xml;utf8,<svg><image href='{uri(ODD)}'/></svg>"
    page = f'<img src="{drawing}"><i style="background:url({uri(ODD)})"><b style=\'background:url("{drawing}")\'>{{}}'

    assert page.replace(f"url({uri(ODD)})", f"url({URL})").format(URL) == replaced(page.format(uri(ODD)))


def test_page_need_not_be_utf_8() -> None:
    page = b"<p>\xff\xfe\x00</p><img src='" + uri(ODD).encode() + b"'>\xe7"

    images = find_images(page)

    assert b"<p>\xff\xfe\x00</p><img src='" + URL.encode() + b"'>\xe7" == splice(page, [(images[0], URL)])


def test_url_of_a_connector_that_an_earlier_release_saved_may_have_any_letters() -> None:
    page = f'<img src="{uri(ODD)}">'.encode()
    (image,) = find_images(page)

    assert (
        '<img src="https://görsel.example/a.png">' == splice(page, [(image, "https://görsel.example/a.png")]).decode()
    )


def test_too_many_images_are_refused() -> None:
    page = f'<img src="{uri(GIF)}">'.encode()

    assert MAX_IMAGES == len(find_images(page * MAX_IMAGES))
    assert 2 == len(find_images(page * 2, max_images=2))
    for content, limit in ((page * (MAX_IMAGES + 1), MAX_IMAGES), (page * 3, 2)):
        with pytest.raises(TooLargeError, match=f"more than {limit} embedded images"):
            find_images(content, max_images=limit)


def test_broken_images_count_too() -> None:
    with pytest.raises(TooLargeError, match="200"):
        find_images(b'<img src="data:image/png;base64,!">' * 100_000)


def test_too_long_a_page_is_refused() -> None:
    with pytest.raises(TooLargeError, match=str(MAX_HTML_BYTES)):
        find_images(b" " * (MAX_HTML_BYTES + 1))
    with pytest.raises(TooLargeError, match="limit is 9"):
        find_images(b" " * 10, max_bytes=9)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece",
    [
        b"data:",
        b"data:base64",
        b"data:a;base64",
        b"data&#58;" * 500 + b"base64",
        b"<script",
        b"<script>",
        b"<!--",
        b"<!-- -->",
        b"<!-- <script",
        b"-",
        b"&#65;",
        b"data:image/svg+xml,",
        b"<style><script>",
        b'<a b="',
        b"data:(" + b"'" * 900,
    ],
)
def test_hostile_page_takes_time_in_proportion_to_its_length(piece: bytes) -> None:
    assert [] == find_images(piece * (4_000_000 // len(piece)))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece",
    [
        b"<script></script>",
        b"<!-- <script> -->",
        b"<!-- <script>",
        b'"data:a/b;base64,A ',
        b"data:;base64,",
        b"'data:image/svg+xml,' ",
        b'<a b="<script>',
        b"<title></title>",
        b"<style ",
        b'<a b="<textarea ',
    ],
)
def test_page_of_nothing_but_tags_and_uris_is_refused(piece: bytes) -> None:
    with pytest.raises(TooLargeError, match=str(MAX_FINDS)):
        find_images(piece * (4_000_000 // len(piece)))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece", [b"A", b"A\n", b"&#65;", b"&amp;#65;", b"&#00065;", b"%41", b"\\/", b"\\=", b"=", b"%", b"&#", b"&#65"]
)
def test_hostile_text_takes_time_in_proportion_to_its_length(piece: bytes) -> None:
    (image,) = find_images(b'<img src="data:image/png;base64,' + piece * (2_000_000 // len(piece)) + b'">')

    assert image.error is not None


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


FORMS: list[Callable[[str], str]] = [
    str,
    lambda text: text.replace("data:", "DATA:").replace("base64", "BASE64"),
    lambda text: text.replace(";base64", ";charset=utf-8;base64"),
    lambda text: text.rstrip("="),
    lambda text: text[:22] + text[22:].replace("+", "-").replace("/", "_"),
    lambda text: text[:22] + quote(text[22:], safe=""),
    lambda text: text[:22] + text[22:].replace("+", "&#43;").replace("/", "&#x2F;").replace("=", "&equals;"),
]
WRAPPED: list[Callable[[str], str]] = [lambda text: text[:22] + "\r\n".join(re.findall(".{1,9}", text[22:])), *FORMS]


@st.composite
def pages(draw: st.DrawFn) -> tuple[str, list[tuple[str, bool]]]:
    """A page in pieces: (text, whether it is an image that must be replaced)."""
    pieces: list[tuple[str, bool]] = []
    for _ in range(draw(st.integers(0, 5))):
        before, after = draw(st.sampled_from(DELIMITERS))
        form = draw(st.sampled_from(FORMS if after[:1] == " " else WRAPPED))
        content = draw(st.sampled_from([PNG, GIF, FONT, b"\xff\xd8\xff"])) + draw(st.binary(max_size=60))
        pieces += [(f"<p>{draw(FILLER)}</p><i {before}", False), (form(uri(content)), True), (f"{after}>", False)]
    return draw(FILLER).replace("<", ""), pieces


@given(pages())
def test_every_byte_but_the_images_stays_and_a_second_run_changes_nothing(
    page: tuple[str, list[tuple[str, bool]]],
) -> None:
    head, pieces = page
    whole = head + "".join(text for text, _ in pieces)

    once = replaced(whole)

    assert head + "".join(URL if image else text for text, image in pieces) == once
    assert once == replaced(once)


@given(st.binary(max_size=400))
def test_any_bytes_are_scanned_and_come_back_whole(content: bytes) -> None:
    images: list[DataUri] = find_images(content)

    kept = [(image, content[image.start : image.end].decode("latin-1")) for image in images if image.error is None]

    assert content == splice(content, [(image, text) for image, text in kept if text.isascii()])
