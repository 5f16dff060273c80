"""Names whose servers are silent hold up no other name."""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.outgoing import resolver as module
from shared.outgoing.resolver import THREADS, Resolver
from support.waiting import until


class Names:
    """Names below `silent.example` are not answered before `answer` is set; every other one is at once."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.answer = threading.Event()

    def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked[host] += 1
        if host.endswith("silent.example"):
            self.answer.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", port))]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names.getaddrinfo)
    return names


@pytest.fixture
async def resolver(names: Names) -> AsyncIterator[Resolver]:
    resolver = Resolver()
    yield resolver
    names.answer.set()
    await resolver.close()


async def look_up_silent(resolver: Resolver, count: int) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(resolver.addresses(f"a{number}.silent.example", 443)) for number in range(count)]


async def test_silent_domain_holds_up_no_other_name_and_no_thread_of_the_process(
    resolver: Resolver, names: Names
) -> None:
    silent = await look_up_silent(resolver, 2 * THREADS)
    await until(lambda: names.asked.total() == THREADS // 2)
    for lookup in silent:
        lookup.cancel()

    async with asyncio.timeout(20):
        found = [await resolver.addresses(f"shop{number}.example", 443) for number in range(2 * THREADS)]
        assert "done" == await asyncio.to_thread(lambda: "done")

    assert all(addresses[0][4] == ("8.8.8.8", 443) for addresses in found)
    assert names.asked.total() == THREADS // 2 + 2 * THREADS


async def test_host_is_looked_up_once_for_all_who_ask_at_once(resolver: Resolver, names: Names) -> None:
    asking = [asyncio.create_task(resolver.addresses("one.silent.example", 443)) for _ in range(5)]
    await until(lambda: names.asked.total() == 1)
    asking[0].cancel()
    names.answer.set()

    answers = await asyncio.gather(*asking, return_exceptions=True)

    assert isinstance(answers[0], asyncio.CancelledError)
    assert all(isinstance(answer, socket.gaierror) for answer in answers[1:])
    assert 1 == names.asked.total()


async def test_name_that_waits_too_long_for_a_thread_is_an_error_of_names(
    monkeypatch: pytest.MonkeyPatch, names: Names
) -> None:
    monkeypatch.setattr(module, "WAIT_S", 0.05)
    resolver = Resolver()
    try:
        await look_up_silent(resolver, THREADS // 2)
        await until(lambda: names.asked.total() == THREADS // 2)

        with pytest.raises(socket.gaierror, match="too many names in progress"):
            await resolver.addresses("late.silent.example", 443)
    finally:
        names.answer.set()
        await resolver.close()


async def test_address_of_one_interface_is_told_with_it(monkeypatch: pytest.MonkeyPatch, resolver: Resolver) -> None:
    local = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", 443, 0, 2))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [local])

    assert ["fe80::1%2"] == [found["host"] for found in await resolver.resolve("printer.example", 443)]
