"""
Requests by HTTP: real ones of every route, their damage at each layer, and the reading of the answer as bytes.

The layers: values of the JSON, text of the body, its coding, path and query, the bytes of the whole request.
"""

import asyncio
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from msgspec import Struct

from support.fuzz.damage import TOKENS, Damage

ROOT = Path(__file__).parents[3]
PHOTO = (ROOT / "demo" / "photo.jpg").read_bytes()
WIDGET = (ROOT / "demo" / "widget.html").read_bytes()

WHOLE_S = 100.0
"""Time limit of the answer to a request that is whole HTTP, whatever is in it."""
BROKEN_S = 3.0
"""As long a client waits whose request may not have ended."""

Layer = Literal["values", "text", "coding", "path", "bytes"]
LAYERS: tuple[Layer, ...] = ("values", "values", "values", "text", "coding", "path", "bytes", "bytes")


class Example(Struct, frozen=True):
    """A request as somebody would send it. `body` is a JSON value, or the bytes of another content type."""

    service: str
    method: str
    path: str
    body: Any = None
    content_type: str = "application/json"
    followed: bool = False
    """The answer to another request has led to it."""


class DamagedRequest(Struct, frozen=True):
    """A damaged request. `whole` says that it is proper HTTP, which has to be answered."""

    form: Example
    layer: Layer
    data: bytes
    whole: bool


class Answer(Struct, frozen=True):
    """The first answer to a request; `status` is 0 where the connection ended, or stayed silent, without one."""

    status: int
    body: bytes
    raw: bytes


def multipart(fields: Sequence[tuple[str, str, bytes]]) -> tuple[str, bytes]:
    """The content type and the body of a form of name, file name and content."""
    mark = "mark7MA4YWxkTrZu0gW"
    parts = []
    for name, file_name, content in fields:
        named = f'; filename="{file_name}"' if file_name else ""
        parts.append(f'--{mark}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + content)
    return f"multipart/form-data; boundary={mark}", b"\r\n".join(parts) + f"\r\n--{mark}--\r\n".encode()


def event(**changes: Any) -> dict[str, Any]:
    """An event with every field."""
    return {
        "id": "e1",
        "type": "event",
        "code": "purchase",
        "user_id": "user-1",
        "ext_id": "12345",
        "occurred_at": 1_790_000_000_000,
        "attributes": {"cart": [{"sku": "a", "price": 1.1}], "note": "ü", "partner_id": 4, "deep": {"a": [None, True]}},
        "user": {"attributes": {"city": "İzmir"}},
        "identities": {"email": "a@example.com", "msisdn": "+905551112233", "device_tokens": ["t1", "t2"]},
    } | changes


def forms(app: str, *, hook_url: str, secrets: dict[str, str]) -> list[Example]:
    """A real request of every route that an app or an operator has; `secrets` go where credentials go."""
    at = f"/v1/apps/{app}"
    dead = "http://127.0.0.1:9"
    amazon = {"access_key": "AKIATESTINGTESTING00", "secret_key": secrets["amazon"], "bucket_name": "media"}
    amazon |= {"region": "eu-west-1", "endpoint_url": dead}
    azure = {"account_name": "shopmedia", "account_key": secrets["azure"], "container_name": "media"}
    azure |= {"blob_endpoint": dead}
    kinesis = {"api_key": "AKIATESTINGTESTING00", "secret_key": secrets["kinesis"], "region": "eu-west-1"}
    kinesis |= {"endpoint_url": dead}
    hook: dict[str, Any] = {
        "name": "All",
        "type": "WEBHOOK",
        "url": hook_url,
        "secret": secrets["webhook"],
        "trigger_type": "EVENT",
    }
    hook |= {"event_code": ["purchase", "view"], "batch": {"max_records": 5, "linger_ms": 10, "format": "json_array"}}
    stream = {"name": "S", "stream_name": "orders", "trigger_type": "MESSAGE_LOG", "event_code": "*"}
    s3 = {
        "type": "s3",
        "bucket": "reports",
        "directory": "d",
        "region": "eu-west-1",
        "access_key": "AKIATESTINGTESTING00",
    }
    s3 |= {"secret_key": secrets["export"], "endpoint_url": dead}
    export: dict[str, Any] = {
        "data": "clicks",
        "frequency": 1440,
        "destination": s3,
        "affiliates": [1, 2],
        "advertisers": ["a" * 24],
    }
    gateway = {"data": "conversions", "frequency_s": 60, "destination": {"type": "gateway", "directory": "c"}}
    remote = {"protocol": "sftp", "host": "127.0.0.1", "port": 9, "username": "u", "password": secrets["remote"]}
    remote |= {"path": "/out", "push": ["*.csv"], "profiles": ["*.txt"], "schedule": "*/5 1-3 * * 1", "settle_s": 0}
    ftps = {"protocol": "ftps", "host": "127.0.0.1", "port": 9, "username": "u", "password": secrets["remote"]}
    user = {"password": secrets["sftp"], "allowed_ips": ["10.0.0.0/8"], "expires_at": "2030-01-01T00:00:00Z"}
    user |= {"public_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGKRB0hNMpKLjm1R1CRzn6Mt7fRjMYBgxMmBJyqeWkDb x"]}
    profile: dict[str, Any] = {
        "display_name": "Mess",
        "timezone": "Europe/Istanbul",
        "profile_attributes": {"age": "number"},
    }
    profile |= {"settle_s": 0.1}
    media_type, media = multipart([("kind", "", b"message-image"), ("file", 'a"b.jpg', PHOTO)])
    page_type, page = multipart([("file", "w.html", WIDGET)])
    lines = b"\n".join(json.dumps(event(id=f"l{n}")).encode() for n in range(3))
    filters = "hook=h1&reason=refused&since=2026-01-01T00:00:00Z&until=2030-01-01T00:00:00Z"
    found = [
        Example("hooks", "POST", f"{at}/events", [event(), event(id="e2", type="message_log"), event(id="e3")]),
        Example("hooks", "POST", f"{at}/events", [event(type="click"), event(type="conversion", user_id="ü")]),
        Example("hooks", "POST", f"{at}/events", lines, "application/x-ndjson"),
        Example("hooks", "PUT", f"{at}/hooks/h1", hook),
        Example("hooks", "PUT", f"{at}/hooks/h2?dry_run=true", hook),
        Example("hooks", "PUT", f"{at}/hooks/h2", stream),
        Example("hooks", "POST", f"{at}/hooks/h1/preview", {"event": event()}),
        Example("hooks", "POST", f"{at}/hooks/h1/preview", {"last": 5}),
        Example("hooks", "POST", f"{at}/hooks/h1/test", {}),
        Example("hooks", "GET", f"{at}/hooks/h1/status"),
        Example("hooks", "DELETE", f"{at}/hooks/h2"),
        Example("hooks", "PUT", f"{at}/connectors/kinesis", kinesis),
        Example("hooks", "POST", f"{at}/connectors/kinesis/test", kinesis | {"stream_name": "orders"}),
        Example("hooks", "GET", f"{at}/dead-letters?limit=5&after=0&{filters}"),
        Example("hooks", "GET", f"{at}/dead-letters/1"),
        Example("hooks", "DELETE", f"{at}/dead-letters?{filters}"),
        Example("hooks", "POST", f"{at}/dead-letters/replay", {"hook": "h1", "limit": 5, "after": 0}),
        Example("storage", "POST", f"{at}/media", media, media_type),
        Example(
            "storage", "PUT", f"{at}/media?kind=file&file_name=a%20b.txt", b"plain text", "application/octet-stream"
        ),
        Example("storage", "PUT", f"{at}/media?kind=message-image", PHOTO, "application/octet-stream"),
        Example("storage", "POST", f"{at}/widgets?strict=true", WIDGET, "text/html"),
        Example("storage", "POST", f"{at}/widgets", page, page_type),
        Example("storage", "GET", f"{at}/objects?kind=file&limit=5&after=0"),
        Example("storage", "GET", f"{at}/objects/file-0123456789abcdef0123456789abcdef"),
        Example("storage", "DELETE", f"{at}/objects/file-0123456789abcdef0123456789abcdef"),
        Example("storage", "GET", f"/cdn/{app}/message-image/0123/photo.jpg"),
        Example("storage", "PUT", f"{at}/connectors/amazon-storage?dry_run=true", amazon),
        Example("storage", "POST", f"{at}/connectors/azure-storage/test", azure),
        Example("storage", "GET", f"{at}/providers"),
        Example("exporter", "PUT", f"{at}/exports/clicks?force=true", export),
        Example("exporter", "PUT", f"{at}/exports/conversions", gateway),
        Example("exporter", "POST", f"{at}/exports/conversions/flush"),
        Example("exporter", "POST", f"{at}/exports/conversions/test"),
        Example("exporter", "GET", f"{at}/exports/conversions/runs?limit=3"),
        Example("exporter", "GET", f"{at}/exports/conversions/runs/20260101T000000Z"),
        Example("ftp-gateway", "PUT", at, profile),
        Example("ftp-gateway", "GET", f"{at}/files?limit=3&state=failed&before=2026-01-01T00:00:00Z"),
        Example("ftp-gateway", "GET", f"{at}/files/0123456789abcdef"),
        Example("ftp-gateway", "PUT", f"{at}/ftp-users/nightly", user),
        Example("ftp-gateway", "PUT", f"{at}/remotes/r1", remote),
        Example("ftp-gateway", "PUT", f"{at}/remotes/r2", ftps),
        Example("ftp-gateway", "POST", f"{at}/remotes/r1/test", {}),
        Example("ftp-gateway", "POST", f"{at}/remotes/r1/accept-host-key", {"fingerprint": "SHA256:" + "A" * 43}),
        Example("ftp-gateway", "GET", f"{at}/remotes/r1/status"),
        Example("ftp-gateway", "GET", "/v1/bans?limit=4"),
        Example("ftp-gateway", "DELETE", "/v1/bans/127.0.0.3"),
        Example("ftp-gateway", "GET", "/v1/host-keys"),
        Example("hooks", "GET", "/v1/partitions"),
        Example("hooks", "GET", "/metrics"),
        Example("hooks", "GET", "/openapi.json"),
    ]
    found += [Example(service, "GET", "/readyz") for service in ("storage", "exporter", "ftp-gateway")]
    return found


def follow(form: Example, answer: Answer) -> list[Example]:
    """Requests for what a request has stored, as its answer names it."""
    try:
        told = json.loads(answer.body)
        at = f"/v1/apps/{told['app_key']}/objects/{told['id']}"
        bare = "/" + told["original"]["url"].partition("//")[2].partition("/")[2]
    except (ValueError, KeyError, TypeError):
        return []
    found = [Example("storage", method, path, followed=True) for method, path in (("GET", at), ("GET", bare))]
    return [*found, Example("storage", "DELETE", at, followed=True)]


def whole(form: Example, token: str) -> DamagedRequest:
    """The request as it is."""
    body = form.body if isinstance(form.body, bytes) else b"" if form.body is None else json.dumps(form.body).encode()
    headers = {"Host": "mesh", "Authorization": f"Bearer {token}", "Connection": "close"}
    headers |= {"Content-Type": form.content_type} if form.body is not None else {}
    return DamagedRequest(form, "values", _written(form.method, form.path, headers, body, None), whole=True)


def damaged(form: Example, token: str, at_random: random.Random) -> DamagedRequest:
    """One damaged request, at one layer drawn at random."""
    damage = Damage(at_random)
    layer = at_random.choice(LAYERS)
    body = form.body if isinstance(form.body, bytes) else b"" if form.body is None else json.dumps(form.body).encode()
    path, headers = form.path, {"Host": "mesh", "Authorization": f"Bearer {token}", "Connection": "close"}
    chunked = False
    if layer == "values" and form.body is not None and not isinstance(form.body, bytes):
        body = damage.document(form.body)
    elif layer in ("values", "text"):
        body = damage.of_bytes(body, 6)
    elif layer == "coding":
        headers["Content-Encoding"], body = damage.packed(body)
    elif layer == "path":
        path = _damaged_path(path, damage)
    if form.body is not None or body:
        odd_type = at_random.random() < 0.05
        headers["Content-Type"] = at_random.choice(ODD_TYPES) if odd_type else form.content_type
    chunked = at_random.random() < 0.25
    data = _written(form.method, path, headers, body, at_random if chunked else None)
    if layer == "bytes":
        # Often only the head is damaged, which is the smaller part.
        head, blank, rest = data.partition(b"\r\n\r\n")
        data = damage.of_bytes(head) + blank + rest if at_random.random() < 0.6 else damage.of_bytes(data)
    return DamagedRequest(form, layer, data, whole=layer != "bytes")


ODD_TYPES = (
    *("", "text/plain", "application/json; charset=latin-1", "application/x-ndjson", "multipart/form-data"),
    *("multipart/form-data; boundary=", "multipart/mixed; boundary=x", "application/json;;", "\xff", "text/html"),
)


def _damaged_path(path: str, damage: Damage) -> str:
    draw = damage.random
    bare, _, query = path.partition("?")
    if query and draw.random() < 0.6:
        names = query.split("&")
        at = draw.randrange(len(names))
        name, _, value = names[at].partition("=")
        value = quote(damage.of_bytes(value.encode() or b"x", 2), safe=draw.choice(("", "+:/?&=")))
        names[at : at + 1] = draw.choice(
            ([f"{name}={value}"], [f"{name}=1", f"{name}={value}"], [name], [f"x{name}=1"], [])
        )
        return f"{bare}?{'&'.join(names)}"
    parts = bare.split("/")
    at = draw.randrange(1, len(parts))
    odd = (parts[at].encode() + draw.choice(TOKENS), draw.choice(TOKENS), b"x" * draw.choice((64, 65, 2600, 7000)), b"")
    parts[at] = quote(draw.choice(odd), safe="")
    return "/".join(parts) + (f"?{query}" if query else "")


def _written(method: str, path: str, headers: dict[str, str], body: bytes, chunks: random.Random | None) -> bytes:
    if chunks is None:
        headers = headers | ({"Content-Length": str(len(body))} if body or method in ("POST", "PUT") else {})
    else:
        headers = headers | {"Transfer-Encoding": "chunked"}
        pieces, at = [], 0
        while at < len(body):
            size = chunks.choice((1, 7, 1000, len(body)))
            pieces.append(b"%x\r\n%b\r\n" % (len(body[at : at + size]), body[at : at + size]))
            at += size
            if len(pieces) > 40:
                size = len(body) - at
                pieces += [b"%x\r\n%b\r\n" % (size, body[at:])] if size > 0 else []
                break
        body = b"".join(pieces) + b"0\r\n\r\n"
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return head.encode("latin-1") + b"\r\n" + body


async def send(url: str, sent: DamagedRequest, source: str) -> Answer:
    """Send from an address of loopback, and read the answer until the connection ends."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), local_addr=(source, 0))
    raw = bytearray()
    try:
        writer.write(sent.data)
        async with asyncio.timeout(WHOLE_S if sent.whole else BROKEN_S):
            while piece := await reader.read(1 << 16):
                raw += piece
    except (ConnectionError, TimeoutError):
        # What came until then is looked at; a whole request without an answer is a finding.
        pass
    finally:
        writer.transport.abort()
    return _answer(bytes(raw))


def _answer(raw: bytes) -> Answer:
    rest = raw
    while rest.startswith(b"HTTP/1.1 100 "):
        rest = rest.partition(b"\r\n\r\n")[2]
    head, _, body = rest.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    status = int(words[1]) if len(words) > 1 and words[1][:3].isdigit() else 0
    return Answer(status, body, raw)
