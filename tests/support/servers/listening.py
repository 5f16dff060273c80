"""A server as a process of its own on a free port of loopback."""

import asyncio
import socket
import tempfile
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import aiohttp

START_S: Final = 60.0
"""Longest time until a server answers: moto imports for seconds, longer on a busy machine."""


@asynccontextmanager
async def listening(command: Callable[[int], Sequence[str]], path: str) -> AsyncIterator[str]:
    """
    Run a server until the block is left, and yield its URL once it answers.

    Neither moto nor Azurite reports its port when started with port 0. A free one is picked here, and another one
    when another process binds it first.
    """
    said = ""
    for _ in range(3):
        port = _free_port()
        url = f"http://127.0.0.1:{port}"
        with tempfile.TemporaryFile() as log:
            process = await asyncio.create_subprocess_exec(*command(port), stdin=DEVNULL, stdout=log, stderr=STDOUT)
            try:
                async with asyncio.timeout(START_S):
                    up = await _answers(process, url + path)
                if up:
                    yield url
                    return
            finally:
                await _stop(process)
                log.seek(0)
                said = log.read()[-2000:].decode(errors="replace")
    raise RuntimeError(f"the server ended while it started: {said}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def _answers(process: Process, url: str) -> bool:
    async with aiohttp.ClientSession() as http:
        while process.returncode is None:
            try:
                async with http.get(url):
                    return True
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
    return False


async def _stop(process: Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(5):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
