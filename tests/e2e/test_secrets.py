"""
No secret leaves the mesh: every place where one could show is read after a run in which much went wrong.
"""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import asyncssh

from shared.contracts.services import SERVICE_NAMES
from support.servers.mesh import RunningMesh

APP = "/v1/apps/shop"
PHOTO = (Path(__file__).parents[2] / "demo" / "photo.jpg").read_bytes()
SECRETS = {
    "storage": "wJalr-storage-XUtnFEMI-K7MDENG",
    "azure": "d0phbHItYXp1cmUtWFV0bkZFTUktSzdNREVORw==",
    "kinesis": "wJalr-kinesis-XUtnFEMI-K7MDENG",
    "export": "wJalr-export-XUtnFEMI-K7MDENG",
    "password": "correct-horse-battery-staple",
}


async def say(mesh: RunningMesh, method: str, service: str, path: str, **options: Any) -> str:
    """The service's whole response, refused or not."""
    async with mesh.http.request(method, mesh.url(service, path), **options) as response:
        return f"{response.status} {dict(response.headers)} {await response.text()}"


async def misuse(mesh: RunningMesh) -> list[str]:
    """Send good and bad requests that contain secrets, some with failing endpoints. Returns every answer."""
    where = {"region": "eu-west-1", "endpoint_url": mesh.moto.url}
    dead = {"region": "eu-west-1", "endpoint_url": "http://127.0.0.1:9"}
    storage = {"access_key": "AKIATESTINGTESTING00", "secret_key": SECRETS["storage"], "bucket_name": "no-such-bucket"}
    azure = {"account_name": "shopmedia", "account_key": SECRETS["azure"], "container_name": "none"}
    blobs, dead_blobs = {"blob_endpoint": mesh.moto.url}, {"blob_endpoint": "http://127.0.0.1:9"}
    kinesis = {"api_key": "AKIATESTINGTESTING00", "secret_key": SECRETS["kinesis"]}
    export = {"type": "s3", "bucket": "none", "access_key": "AKIATESTINGTESTING00", "secret_key": SECRETS["export"]}
    hook = {"name": "all", "stream_name": "none", "trigger_type": "EVENT", "event_code": "*"}
    events = [{"code": "view", "user_id": "u"}, {"type": "click", "code": "click", "user_id": "u"}]
    requests: list[tuple[str, str, str, dict[str, Any]]] = [
        ("PUT", "storage", "connectors/amazon-storage", storage | where),
        ("PUT", "storage", "connectors/amazon-storage", storage | where | {"secret_kee": SECRETS["storage"]}),
        ("PUT", "storage", "connectors/amazon-storage", storage | where | {"region": SECRETS["storage"]}),
        ("POST", "storage", "connectors/amazon-storage/test", storage | where),
        ("POST", "storage", "connectors/amazon-storage/test", storage | dead),
        ("GET", "storage", "connectors/amazon-storage", {}),
        ("PUT", "storage", "connectors/azure-storage", azure | blobs),
        ("PUT", "storage", "connectors/azure-storage", azure | blobs | {"container_name": SECRETS["azure"]}),
        ("PUT", "storage", "connectors/azure-storage", azure | {"account_key": f"AccountKey={SECRETS['azure']};"}),
        ("POST", "storage", "connectors/azure-storage/test", azure | blobs),
        ("POST", "storage", "connectors/azure-storage/test", azure | dead_blobs),
        ("GET", "storage", "connectors/azure-storage", {}),
        ("GET", "storage", "providers", {}),
        ("PUT", "hooks", "connectors/kinesis", kinesis | where),
        ("PUT", "hooks", "connectors/kinesis", kinesis | where | {"region": SECRETS["kinesis"]}),
        ("POST", "hooks", "connectors/kinesis/test", kinesis | dead),
        ("GET", "hooks", "connectors/kinesis", {}),
        ("PUT", "hooks", "hooks/all", hook),
        ("PUT", "exporter", "exports/clicks", {"data": "clicks", "destination": export | where}),
        ("PUT", "exporter", "exports/clicks?force=true", {"data": "clicks", "destination": export | where}),
        (
            "PUT",
            "exporter",
            "exports/clicks",
            {"data": "clicks", "destination": export | where, "x": SECRETS["export"]},
        ),
        ("POST", "exporter", "exports/clicks/test", {}),
        ("GET", "exporter", "exports/clicks", {}),
        ("PUT", "ftp-gateway", "ftp-users/nightly", {"password": SECRETS["password"]}),
        ("PUT", "ftp-gateway", "ftp-users/nightly", {"password": SECRETS["password"], "allowed_ips": ["nowhere"]}),
        ("GET", "ftp-gateway", "ftp-users/nightly", {}),
        ("GET", "ftp-gateway", "ftp-users", {}),
        ("POST", "hooks", "events", events),  # type: ignore[list-item]  # an array is a body, too
        ("POST", "exporter", "exports/clicks/flush", {}),
        ("GET", "exporter", "exports/clicks/runs", {}),
    ]
    answers = []
    for method, service, path, body in requests:
        options = {} if method == "GET" or not body else {"json": body}
        answers.append(await say(mesh, method, service, f"{APP}/{path}", **options))
    form = aiohttp.FormData()
    form.add_field("file", PHOTO, filename="photo.jpg")
    answers.append(await say(mesh, "POST", "storage", f"{APP}/media", data=form))
    host, port = mesh.sftp
    for password in (SECRETS["password"], SECRETS["password"] + "x"):
        try:
            async with (
                asyncssh.connect(
                    host, port, username="shop.nightly", password=password, known_hosts=None, config=None
                ) as connection,
                connection.start_sftp_client() as client,
            ):
                answers.append(str(await client.listdir("/")))
        except asyncssh.PermissionDenied as refused:
            answers.append(str(refused))
    return answers


async def messages(mesh: RunningMesh) -> list[str]:
    """All messages that NATS stores, read from the server's files."""
    found = []
    for name in ("EVENTS", "DLQ", "ALERTS", "OBJECTS", "FILES", "KV_CONFIG", "KV_RUNS", "KV_PLANS", "KV_MEDIA"):
        files = [path for path in (mesh.folder.nats).rglob("*") if name in path.parts and path.is_file()]
        assert files, f"{name} is not where it was looked for"
        found += [path.read_bytes().decode(errors="replace") for path in files]
    return found


async def test_no_secret_is_anywhere_it_could_be_seen(mesh: RunningMesh) -> None:
    answers = await misuse(mesh)
    async with asyncio.timeout(20):
        while "paused" not in (log := mesh.folder.log("hooks").read_text()) and "alert_raised" not in log:
            await asyncio.sleep(0.05)
    metrics = [
        await say(mesh, "GET", service, path)
        for service in SERVICE_NAMES
        for path in ("/metrics", "/readyz", "/openapi.json")
    ]
    stored = await messages(mesh)
    logs = [path.read_text() for path in mesh.folder.logs.iterdir()]

    places = {"answers": answers, "metrics": metrics, "NATS": stored, "logs": logs}

    token = mesh.folder.admin_token()
    seeds = mesh.folder.seeds()
    keys = mesh.folder.secret_keys()
    every = SECRETS | {"token": token, "key": keys} | {f"seed of {user}": seed for user, seed in seeds.items()}
    shown = [
        f"the secret of {name} is in {place}: …{text[max(0, text.index(secret) - 200) : text.index(secret)]}"
        for name, secret in every.items()
        for place, texts in places.items()
        for text in texts
        if secret in text
    ]
    assert not shown
    assert any("***" in answer for answer in answers)


async def test_files_with_secrets_are_their_owners_alone(mesh: RunningMesh) -> None:
    for name in ("keys", "admin-token", "secret-keys"):
        path = mesh.folder.root / name
        files = [path] if path.is_file() else [path, *path.iterdir()]

        assert [file for file in files if file.stat().st_mode & 0o077] == []
