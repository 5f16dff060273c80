"""
Storage against the SDKs and the plain ways: what a PUT costs, a thumbnail, a widget, and an upload that does not fit
into memory. CPU is that of this process with all its threads; the stores that it speaks to are stubs in another.
"""

import asyncio
import base64
import contextlib
import hashlib
import importlib.util
import itertools
import random
import re
import resource
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from pathlib import Path
from time import perf_counter, thread_time

import aiohttp
from PIL import Image, ImageChops

from millrace.machine.child_process import Child, child
from millrace.machine.ports import free_ports
from millrace.mesh.folder import MeshFolder
from millrace.mesh.local_mesh import LocalMesh
from millrace.nats_servers.server import NatsServer
from millrace.verbs.bench import Report, Row, compare, rounds
from shared.aws.clients import AwsClients
from shared.aws.roles import AwsCredentials
from shared.config.secret import Secret
from shared.contracts import streams
from shared.messaging.connection import connect
from shared.messaging.kv import KeyValueStore
from shared.messaging.provisioning.making import ensure
from shared.objects.config import AzureStoreConfig, S3StoreConfig
from shared.objects.store import ObjectStore
from shared.outgoing.door import Outgoing
from shared.runtime.settings import Settings, child_environment
from shared.runtime.telemetry import Metrics
from storage.content.body import Body, body_of
from storage.images.image import inspect_image
from storage.images.worker_pool import ImageProcessPool
from storage.placement.failover import ObjectHeaders, ProviderHealth
from storage.uploads.records import Records
from storage.uploads.upload import UploadLimits, Uploads
from storage.widgets.widget import Widgets

NAME = "storage"
ROUNDS = 5
OBJECTS = 400
OBJECT_BYTES = 50_000
AT_ONCE = 16
THUMBNAILS = 3
PICTURES = 16
SIDE_PX = 320
WIDGET_PICTURES = 5
UPLOAD_BYTES = 500_000_000
PIECE_BYTES = 1 << 20
CACHE_CONTROL = "public, max-age=31536000, immutable"
ACCESS_KEY, SECRET_KEY = "AKIA0123456789ABCDEF", "secret"
AZURE_KEY = base64.b64encode(b"secret").decode()

STUB = """
import asyncio, sys
from aiohttp import web

XML = {"Content-Type": "application/xml"}
S3 = {"ETag": '"0123456789abcdef0123456789abcdef"'}
AZURE = {"ETag": '"0x8D"', "Last-Modified": "Tue, 10 Nov 2026 10:00:00 GMT", "x-ms-version": "2021-08-06",
         "x-ms-request-id": "0", "x-ms-request-server-encrypted": "true"}
BEGUN = "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
ENDED = "<CompleteMultipartUploadResult><ETag>1</ETag></CompleteMultipartUploadResult>"

async def answer(request):
    async for _ in request.content.iter_any():
        pass
    if request.method == "PUT":
        azure = "x-ms-version" in request.headers
        return web.Response(status=201 if azure else 200, headers=AZURE if azure else S3)
    if request.method == "POST":
        return web.Response(text=BEGUN if "uploads" in request.query else ENDED, headers=XML)
    return web.Response(status=200 if request.path == "/livez" else 404)

async def main(port):
    app = web.Application()
    app.router.add_route("*", "/{key:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()

asyncio.run(main(int(sys.argv[1])))
"""
"""S3 and Azure in one, which say yes to everything."""

BARE = """
import asyncio, sys
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from aiohttp import web

async def main(port, endpoint_url, access_key, secret_key):
    config = AioConfig(request_checksum_calculation="when_required", s3={"addressing_style": "path"})
    async with AioSession().create_client(
        "s3", region_name="eu-west-1", endpoint_url=endpoint_url, config=config,
        aws_access_key_id=access_key, aws_secret_access_key=secret_key,
    ) as s3:
        async def livez(_):
            return web.Response(text="ok")
        async def put(request):
            await s3.put_object(Bucket="bucket", Key="object", Body=await request.read())
            return web.Response(status=201)
        app = web.Application(client_max_size=1 << 30)
        app.router.add_get("/livez", livez)
        app.router.add_put("/media", put)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()

asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
"""
"""An upload as it is written first: the body is read, then put."""

DATA_URI = re.compile(rb"data:image/[a-z]+;base64,([A-Za-z0-9+/=]+)")

_numbers = itertools.count()


async def rows(report: Report) -> list[Row]:
    """Milliseconds of CPU, of work and of waiting; megabytes."""
    report(f"making a photograph of {4000 * 3000 / 1e6:.0f} megapixels")
    photo = await asyncio.to_thread(_photo, 4000, 3000)
    return [
        *await _put_rows(report),
        *await _thumbnail_rows(photo, report),
        await _lag_row(photo, report),
        await _widget_row(report),
        await _upload_row(report),
    ]


async def _put_rows(report: Report) -> list[Row]:
    async with AsyncExitStack() as stack:
        url, _ = await stack.enter_async_context(_server("stub", STUB))
        report(f"{ROUNDS} rounds in turn: put {OBJECTS} objects of {OBJECT_BYTES} bytes on S3, {AT_ONCE} at once")
        keys = AwsCredentials(access_key_id=ACCESS_KEY, secret_access_key=Secret(SECRET_KEY))
        s3_config = S3StoreConfig(
            bucket="bucket",
            region="eu-west-1",
            access_key_id=ACCESS_KEY,
            secret_access_key=Secret(SECRET_KEY),
            endpoint_url=url,
        )
        outgoing = await stack.enter_async_context(Outgoing(Settings(allow_private_endpoints=True)))
        store = await stack.enter_async_context(s3_config.open(outgoing))
        aws = await stack.enter_async_context(AwsClients(outgoing))
        s3 = await stack.enter_async_context(aws.client("s3", region="eu-west-1", credentials=keys, endpoint_url=url))

        async def sdk_put(key: str, data: bytes) -> None:
            await s3.put_object(
                Bucket="bucket",
                Key=key,
                Body=data,
                ContentType="image/png",
                CacheControl=CACHE_CONTROL,
                IfNoneMatch="*",
            )

        on_s3 = await rounds(ROUNDS, lambda: _put(partial(_our_put, store)), lambda: _put(sdk_put))
        measured = [compare("put on S3 against aiobotocore", *on_s3, "ms CPU", at_most=0.2)]
        if importlib.util.find_spec("azure.storage.blob") is None:
            report("azure-storage-blob is not installed: no comparison with it")
            return measured

        from azure.storage.blob import ContentSettings
        from azure.storage.blob.aio import ContainerClient

        report(f"{ROUNDS} rounds in turn: the same on Azure")
        azure_config = AzureStoreConfig(
            account_name="account", account_key=Secret(AZURE_KEY), container="container", endpoint=f"{url}/account"
        )
        store = await stack.enter_async_context(azure_config.open(outgoing))
        container = await stack.enter_async_context(
            ContainerClient(
                f"{url}/account", "container", credential={"account_name": "account", "account_key": AZURE_KEY}
            )
        )
        settings = ContentSettings(content_type="image/png", cache_control=CACHE_CONTROL)

        async def azure_put(key: str, data: bytes) -> None:
            await container.upload_blob(key, data, content_settings=settings)

        on_azure = await rounds(ROUNDS, lambda: _put(partial(_our_put, store)), lambda: _put(azure_put))
        return [*measured, compare("put on Azure against azure-storage-blob", *on_azure, "ms CPU", at_most=0.2)]


async def _our_put(store: ObjectStore, key: str, data: bytes) -> None:
    assert await store.put_if_absent(key, data, content_type="image/png", cache_control=CACHE_CONTROL)


async def _put(put: Callable[[str, bytes], Awaitable[None]]) -> float:
    """Milliseconds of CPU for one object."""
    data, left = random.randbytes(OBJECT_BYTES), iter(range(OBJECTS))

    async def work() -> None:
        for _ in left:
            await put(f"shop/message-image/{next(_numbers):032x}.png", data)

    started = _cpu_s()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(work())
    return 1e3 * (_cpu_s() - started) / OBJECTS


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _thumbnail_rows(photo: bytes, report: Report) -> list[Row]:
    report(f"{ROUNDS} rounds in turn: a thumbnail of {SIDE_PX} px of {len(photo) / 1e6:.1f} MB")
    ours = partial(inspect_image, photo, sides_px=(SIDE_PX,))
    measured = await rounds(ROUNDS, lambda: _cpu(ours), lambda: _cpu(partial(_pillow_thumbnail, photo)))
    made = [compare("thumbnail of 12 MP against Pillow draft()+thumbnail()", *measured, "ms CPU", at_most=1.2)]
    if importlib.util.find_spec("pyvips") is None:
        report("pyvips is not installed: no comparison with it")
    else:
        import pyvips  # type: ignore[import-untyped]

        def vips() -> None:
            pyvips.Image.thumbnail_buffer(photo, SIDE_PX).jpegsave_buffer()

        measured = await rounds(ROUNDS, lambda: _cpu(ours), lambda: _cpu(vips))
        made.append(compare("thumbnail of 12 MP against pyvips", *measured, "ms CPU"))
    if importlib.util.find_spec("thumbor") is None:
        report("thumbor is not installed: no comparison with it (it shrinks by Pillow as well)")
    return made


def _pillow_thumbnail(photo: bytes) -> None:
    """At the quality of ours: decoded at twice the size, which is also what `thumbnail` alone makes of `draft`."""
    with Image.open(BytesIO(photo)) as image:
        image.draft("RGB", (2 * SIDE_PX, 2 * SIDE_PX))
        image.thumbnail((SIDE_PX, SIDE_PX))
        image.save(BytesIO(), "JPEG")


async def _cpu(work: Callable[[], object]) -> float:
    """Milliseconds of CPU, which tell more than a clock does on a machine with other things to do."""
    started = _cpu_s()
    for _ in range(THUMBNAILS):
        work()
    return 1e3 * (_cpu_s() - started) / THUMBNAILS


async def _lag_row(photo: bytes, report: Report) -> Row:
    report(f"{ROUNDS} rounds in turn: the loop's worst lag while {PICTURES} such thumbnails are made")
    body = body_of(photo)
    async with ImageProcessPool() as image_pool:

        async def ours() -> float:
            return await _worst_lag(lambda: image_pool.inspect("bench", body, sides_px=(SIDE_PX,)))

        async def in_threads() -> float:
            return await _worst_lag(lambda: asyncio.to_thread(inspect_image, photo, sides_px=(SIDE_PX,)))

        measured = await rounds(ROUNDS, ours, in_threads)
    return compare("worst lag of the loop under thumbnails, against to_thread", *measured, "ms", ours_at_most=20)


async def _worst_lag(work: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds by which the loop is late at the worst, while it does nothing else than to read the clock."""
    waiting = asyncio.gather(*(work() for _ in range(PICTURES)))
    worst_s, seen = 0.0, perf_counter()
    while not waiting.done():
        await asyncio.sleep(0.001)
        now = perf_counter()
        worst_s, seen = max(worst_s, now - seen - 0.001), now
    await waiting
    return 1e3 * worst_s


class _Memory:
    """A provider that keeps nothing: what is measured is what comes before it. Satisfies `placement.Provider`."""

    name = "memory"
    place = "memory"
    prefix = ""

    async def put_if_absent(self, key: str, body: Body, headers: ObjectHeaders) -> bool:
        return True

    async def delete(self, key: str) -> None:
        return

    def url(self, key: str) -> str:
        return f"https://cdn.example/{key}"


class _Slots:
    """Every app's only provider. Satisfies `uploads.Providers`, and `placement.Seat`."""

    def __init__(self, health: ProviderHealth) -> None:
        self.health = health

    def slots(self, app_key: str) -> Sequence["_Slots"]:
        return [self]

    def provider_at(self, app_key: str, place: str) -> None:
        return None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[_Memory]:
        yield _Memory()


async def _widget_row(report: Report) -> Row:
    page = await asyncio.to_thread(_page)
    body = body_of(page)
    report(f"{ROUNDS} rounds in turn: a widget of {len(page) / 1e6:.1f} MB with {WIDGET_PICTURES} pictures")
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="millrace-bench-"))
        server = await stack.enter_async_context(NatsServer(Path(folder)))
        bus = await stack.enter_async_context(connect("bench", server.url, metrics=Metrics(), wait_s=5))
        for place in (streams.OBJECTS, streams.MEDIA):
            await ensure(bus, place, Settings())
        clock = asyncio.get_running_loop().time
        image_pool = await stack.enter_async_context(ImageProcessPool())
        uploads = Uploads(
            providers=_Slots(ProviderHealth("shop", "memory", alert=bus.alert, now=_now, clock=clock)),
            image_pool=image_pool,
            records=Records(KeyValueStore(bus, streams.MEDIA), now=lambda: datetime.now(UTC)),
            bus=bus,
            metrics=Metrics(),
            limits=UploadLimits(
                max_bytes=dict.fromkeys(("message-image", "widget-image", "attachment", "file"), 10 << 20),
                thumbnails_px=(SIDE_PX,),
            ),
            now=_now,
        )
        widgets = Widgets(uploads, max_bytes=20 << 20, max_images=200)

        async def ours() -> float:
            started = thread_time()
            reply = await widgets.store(f"shop-{next(_numbers)}", body)
            used = thread_time() - started
            assert [None] * WIDGET_PICTURES == [image.error for image in reply.images]
            return 1e3 * used * 1e6 / len(page)

        async def in_the_loop() -> float:
            started = thread_time()
            DATA_URI.sub(_stored_in_the_loop, page)
            return 1e3 * (thread_time() - started) * 1e6 / len(page)

        measured = await rounds(ROUNDS, ours, in_the_loop)
    return compare("loop time of a widget, against all in the loop", *measured, "ms/MB", ours_at_most=10)


def _stored_in_the_loop(found: re.Match[bytes]) -> bytes:
    data = base64.b64decode(found[1])
    _pillow_thumbnail(data)
    return f"https://cdn.example/{hashlib.sha256(data).hexdigest()}".encode()


def _now() -> datetime:
    return datetime.now(UTC)


async def _upload_row(report: Report) -> Row:
    report(f"one upload of {UPLOAD_BYTES / 1e6:.0f} MB on each side")
    ours, other = await rounds(1, _our_upload, _bare_upload)
    return compare("peak RSS of an upload of 500 MB, against read and put", ours, other, "MB", ours_at_most=150)


async def _our_upload() -> float:
    async with AsyncExitStack() as stack:
        url, _ = await stack.enter_async_context(_server("stub", STUB))
        folder = MeshFolder(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="millrace-bench-"))))
        stack.enter_context(folder.lock())
        settings = {"storage_attachment_bytes": UPLOAD_BYTES, "allow_private_endpoints": True}
        mesh = await stack.enter_async_context(LocalMesh(folder, settings=settings))
        headers = {"Authorization": f"Bearer {folder.admin_token()}"}
        http = await stack.enter_async_context(
            aiohttp.ClientSession(folder.addresses().services["storage"], headers=headers)
        )
        connector = {
            "access_key": ACCESS_KEY,
            "secret_key": SECRET_KEY,
            "bucket_name": "bucket",
            "region": "eu-west-1",
            "endpoint_url": url,
        }
        async with http.put("/v1/apps/shop/connectors/amazon-storage", json=connector) as answer:
            assert 200 == answer.status, await answer.text()
        async with asyncio.timeout(10):
            await _wait_active(http, "amazon-storage")
        await _send(http, "/v1/apps/shop/media?kind=attachment&file_name=film.mp4")
        return _peak_mb(mesh.children["storage"])


async def _wait_active(http: aiohttp.ClientSession, name: str) -> None:
    """A connector that was just saved is heard of a moment later."""
    while True:
        async with http.get("/v1/apps/shop/providers") as answer:
            if name in await answer.text():
                return
        await asyncio.sleep(0.05)


async def _bare_upload() -> float:
    async with AsyncExitStack() as stack:
        stub, _ = await stack.enter_async_context(_server("stub", STUB))
        url, process = await stack.enter_async_context(_server("bare", BARE, stub, ACCESS_KEY, SECRET_KEY))
        http = await stack.enter_async_context(aiohttp.ClientSession(url))
        await _send(http, "/media")
        return _peak_mb(process)


async def _send(http: aiohttp.ClientSession, path: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        piece = random.randbytes(PIECE_BYTES)
        for at in range(0, UPLOAD_BYTES, PIECE_BYTES):
            yield piece[: UPLOAD_BYTES - at]

    async with http.put(path, data=pieces(), timeout=aiohttp.ClientTimeout(total=120)) as answer:
        assert 201 == answer.status, await answer.text()


def _peak_mb(process: Child) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


@asynccontextmanager
async def _server(name: str, script: str, *arguments: str) -> AsyncIterator[tuple[str, Child]]:
    """A script as a process that listens, and its address."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder:
        command = (sys.executable, "-c", script, str(port), *arguments)
        log = Path(folder) / "log"
        async with (
            child(name, command, environment=child_environment(), log=log) as process,
            aiohttp.ClientSession() as http,
        ):
            await _wait_alive(http, url, process)
            yield url, process


async def _wait_alive(http: aiohttp.ClientSession, url: str, process: Child) -> None:
    async with asyncio.timeout(30):
        while True:
            if not process.running:
                raise process.ended("before it was ready")
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(f"{url}/livez"):
                    return
            await asyncio.sleep(0.02)


def _photo(width: int, height: int) -> bytes:
    """A JPEG with large shapes and fine noise, in about the bytes for a pixel that cameras give."""
    fine = Image.effect_noise((width, height), 30)
    bands: list[Image.Image] = []
    for number in range(3):
        shapes = Image.effect_noise((width // 16, height // 16), 90).resize((width, height), Image.Resampling.BICUBIC)
        bands.append(Image.blend(shapes, ImageChops.offset(fine, number * 101), 0.3))
    out = BytesIO()
    Image.merge("RGB", bands).save(out, "JPEG", quality=85)
    return out.getvalue()


def _page() -> bytes:
    """A page with pictures that are all different."""
    pictures = [_photo(900, 680) for _ in range(WIDGET_PICTURES)]
    tags = [b'<img src="data:image/jpeg;base64,%b">' % base64.b64encode(picture) for picture in pictures]
    return b"<p>" + b"</p><p>".join(tags) + b"</p>"
