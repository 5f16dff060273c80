"""A storage process that may open 1,024 files, which is what systemd and Debian's shells allow."""

import asyncio
import json
import resource
import sys
from contextlib import ExitStack
from pathlib import Path

import aiohttp

from millrace.machine.child_process import start_child
from shared.runtime.settings import Settings, child_environment
from storage.app import SERVICE as STORAGE
from support.run_service import provision_for
from support.waiting import until


async def test_strangers_who_send_half_a_header_do_not_close_the_door(settings: Settings, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(4096, hard)), hard))
    await provision_for(STORAGE, settings)
    announcement = tmp_path / "announced.json"
    environment = child_environment(
        nats_url=settings.nats_url,
        secret_keys=settings.secret_keys,
        http_port=0,
        announce_file=announcement,
        data_dir=tmp_path / "data",
    )
    few_files = ("sh", "-c", 'ulimit -n 1024 && exec "$@"', "sh")
    log = tmp_path / "log"
    command = (*few_files, sys.executable, "-P", "-m", "storage")
    child = await start_child("storage", command, environment=environment, log=log)
    try:
        await until(lambda: announcement.exists() or not child.running)
        url = json.loads(announcement.read_text())["http"]
        host, port = url.removeprefix("http://").split(":")
        logged = log.stat().st_size
        with ExitStack() as stack:
            for _ in range(1100):
                _, writer = await asyncio.open_connection(host, int(port))
                stack.callback(writer.close)
                writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n")

            async with aiohttp.ClientSession(url) as http, http.get("/livez") as response:
                assert 200 == response.status
            async with aiohttp.ClientSession(url) as http, http.get("/metrics") as response:
                assert "millrace_http_connections 512.0" in await response.text()
        assert log.stat().st_size - logged < 10_000
    finally:
        await child.kill()
