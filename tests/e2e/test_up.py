"""`millrace up` as an operator meets it: ports, restarts, a second one, and nothing left behind."""

import asyncio
import random
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

import msgspec
import psutil
import pytest

from millrace.machine.ports import is_free
from millrace.mesh.access import access_of_folder, open_registry
from millrace.mesh.folder import MeshFolder
from millrace.nats_servers.server import NatsServer
from millrace.verbs.up import USUAL_PORTS
from shared.config.tokens import new_token, token_hash
from shared.contracts.services import SERVICE_NAMES
from shared.contracts.streams import CONFIG
from shared.runtime.settings import child_environment

READY_S = 60.0
STOP_S = 40.0
pytestmark = pytest.mark.timeout(180)


class Up:
    """A running `millrace up` and its output."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.said: list[str] = []

    async def wait_said(self, text: str) -> None:
        assert self.process.stdout is not None
        async with asyncio.timeout(READY_S):
            while not any(text in line for line in self.said):
                line = await self.process.stdout.readline()
                assert line, f"it ended, having said {self.said}"
                self.said.append(line.decode().rstrip())

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    async def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), STOP_S)


async def millrace(*argv: str, variables: Mapping[str, str] | None = None) -> Process:
    command = (sys.executable, "-m", "millrace", *argv)
    environment = child_environment() | dict(variables or {})
    return await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT, env=environment)


def with_free_ports(data: Path) -> MeshFolder:
    """A folder whose mesh does not use the usual ports: another mesh on this machine may use them."""
    folder = MeshFolder(data)
    folder.root.mkdir()
    folder.remember_ports(dict(zip(USUAL_PORTS, lasting_ports(len(USUAL_PORTS)), strict=True)))
    return folder


def lasting_ports(count: int) -> list[int]:
    """
    Free ports below those that the kernel gives to connections (`ip_local_port_range`). It might give one of those away
    between two runs of a mesh, which then takes another one.
    """
    # The random source of a test is seeded alike in every worker.
    drawn = random.SystemRandom().sample(range(10_000, 32_768), 1000)
    return list(islice(filter(is_free, drawn), count))


@asynccontextmanager
async def up(data: Path, *argv: str) -> AsyncIterator[Up]:
    if not MeshFolder(data).ports():
        with_free_ports(data)
    running = Up(await millrace("up", "--data", str(data), *argv))
    try:
        await running.wait_said("Ctrl-C stops the mesh")
        yield running
    finally:
        if running.process.returncode is None:
            await running.stop(signal.SIGKILL)


async def said_by(*argv: str, variables: Mapping[str, str] | None = None) -> tuple[int, str]:
    process = await millrace(*argv, variables=variables)
    out, _ = await asyncio.wait_for(process.communicate(), READY_S + STOP_S)
    assert process.returncode is not None
    return process.returncode, out.decode()


async def wait_gone(processes: list[psutil.Process]) -> None:
    """Wait until none of the processes runs. A zombie whose parent was killed counts as ended."""
    async with asyncio.timeout(10):
        while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in alive(processes)):
            await asyncio.sleep(0.02)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in processes if psutil.pid_exists(one.pid)]


async def test_mesh_is_alone_on_its_data_and_finds_it_again(tmp_path: Path) -> None:
    data = tmp_path / "mesh"

    async with up(data) as first:
        addresses = MeshFolder(data).addresses()
        assert set(SERVICE_NAMES) == set(addresses.services)
        assert all(any(url in line for line in first.said) for url in addresses.services.values())
        assert any(line.endswith(str(data / "admin-token")) for line in first.said)

        code, told = await said_by("up", "--data", str(data))
        assert 1 == code
        assert re.fullmatch(rf"millrace: a mesh runs on {data} already \(process {first.process.pid}; .*\)\n", told)

        mistake = tmp_path / "mistake.toml"
        mistake.write_text('[apps.shop]\ntimezone = "UTC"\n\n[apps.shop.hooks.all]\nname = "all"\nstream_nam = "x"\n')
        code, told = await said_by("apply", "--data", str(data), str(mistake))
        expected = f"millrace: {mistake}:6: apps.shop.hooks.all.stream_nam: unknown field\nnothing was changed\n"
        assert (1, expected) == (code, told)

        code, told = await said_by("provision", "--data", str(data))
        assert 0 == code
        assert re.fullmatch(r"\d+ streams, .* are as this release needs them; 0 changed\n", told)

        code, token = await said_by("token", "create", "--data", str(data), "--scope", "app:shop", "--name", "kept")
        assert 0 == code
        assert token.startswith("mr_")

        children = first.children()
        assert 0 == await first.stop(signal.SIGINT)
        await wait_gone(children)

    async with up(data) as second:
        code, listed = await said_by("token", "list", "--data", str(data))
        assert "kept" in listed
        assert addresses == MeshFolder(data).addresses()

        # kill -9 of the command line itself: the kernel ends the rest.
        children = second.children()
        await second.stop(signal.SIGKILL)
        await wait_gone(children)
    code, told = await said_by("status", "--data", str(data))
    assert (1, 1) == (code, len(told.splitlines()))


async def test_service_that_dies_is_started_again_where_it_was(tmp_path: Path) -> None:
    data = tmp_path / "mesh"

    async with up(data) as running:
        before = MeshFolder(data).addresses()
        hooks = next(child for child in running.children() if child.cmdline()[-1] == "hooks")
        hooks.kill()

        await running.wait_said("hooks was killed by signal 9; starting it again")
        await running.wait_said("hooks is ready again")
        code, told = await said_by("status", "--data", str(data), "--json")

        assert 0 == code
        assert before.services == {
            one["name"]: one["url"] for one in msgspec.json.decode(told)["services"] if one["name"] != "nats"
        }
        assert 0 == await running.stop(signal.SIGTERM)


async def test_three_nats_nodes_are_a_cluster_that_outlives_one_of_them(tmp_path: Path) -> None:
    data = tmp_path / "mesh"

    async with up(data, "--nats-nodes", "3") as running:
        assert 3 == len(MeshFolder(data).addresses().nats.split(","))
        node = next(child for child in running.children() if "nats-2.conf" in child.cmdline()[-1])
        node.kill()

        await running.wait_said("nats-2 is ready again")
        code, told = await said_by("token", "create", "--data", str(data), "--scope", "admin")

        assert (0, True) == (code, told.startswith("mr_"))
        assert 0 == await running.stop(signal.SIGINT)

    code, told = await said_by("up", "--data", str(data))
    assert (1, f"millrace: {data} holds the data of 3 NATS node(s); use --nats-nodes 3\n") == (code, told)


@pytest.mark.parametrize("option", ["--sftp-port", "--http-port-base"])
async def test_port_in_use_is_reported_in_one_line(tmp_path: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        code, told = await said_by("up", "--data", str(tmp_path / "mesh"), option, str(port))

    name = "sftp" if option == "--sftp-port" else "storage"
    assert (1, f"millrace: port {port} for {name} is taken by another process\n") == (code, told)


async def test_wrong_setting_is_one_line(tmp_path: Path) -> None:
    code, told = await said_by("up", "--data", str(tmp_path), variables={"MILLRACE_EVENT_MAX_BYTES": "1"})

    assert (1, "millrace: MILLRACE_EVENT_MAX_BYTES: there is no such setting\n") == (code, told)


async def test_wrong_setting_of_one_service_is_reported_by_it(tmp_path: Path) -> None:
    folder = with_free_ports(tmp_path / "mesh")

    code, told = await said_by("up", "--data", str(folder.root), variables={"MILLRACE_SFTP_IDEL_S": "5"})

    *_, ended, reason = told.splitlines()
    log = folder.log("ftp-gateway")
    assert (1, "  millrace ftp-gateway: MILLRACE_SFTP_IDEL_S: there is no such setting") == (code, reason)
    assert ended == f"millrace: ftp-gateway ended with exit code 1 before it was ready; its log is {log}"


async def test_folder_of_a_release_before_is_signed_once(tmp_path: Path) -> None:
    data = tmp_path / "mesh"
    folder = MeshFolder(data)
    mesh = tmp_path / "mesh.toml"
    mesh.write_text('[apps.shop]\ntimezone = "Asia/Baku"\n')
    async with up(data) as first:
        assert 0 == (await said_by("apply", str(mesh), "--data", str(data)))[0]
        await first.stop(signal.SIGINT)
    forged = new_token()
    (data / "signed").unlink()
    async with (
        NatsServer(folder.nats, users=folder.seeds()) as server,
        open_registry(access_of_folder(folder, server.url)) as registry,
    ):
        for entry in await registry.entries.scan():
            await registry.bus.publish(CONFIG.subject_of(entry.key), entry.data)
        token = b'{"scopes":["admin"],"created_at":"2026-01-01T00:00:00Z"}'
        await registry.bus.publish(CONFIG.subject_of(f"tokens.{token_hash(forged)}"), token)

    async with up(data) as second:
        assert (0, "= apps.shop unchanged") == first_line(await said_by("apply", str(mesh), "--data", str(data)))
        code, said = await said_by("sign", "--data", str(data))
        assert 1 == code
        assert f"tokens.{token_hash(forged)[:12]}  it has no signature" in said
        assert 0 == (await said_by("sign", "--data", str(data), "--delete", f"tokens.{token_hash(forged)}"))[0]
        assert 0 == await second.stop(signal.SIGINT)


def first_line(answer: tuple[int, str]) -> tuple[int, str]:
    code, said = answer
    return code, said.splitlines()[0]
