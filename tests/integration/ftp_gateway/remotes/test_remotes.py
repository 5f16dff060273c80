"""Files of customers' own servers: pulled once through any fault, and the alerts and reports of faults."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ftp_gateway.app import SERVICE
from ftp_gateway.remotes import remote
from ftp_gateway.remotes.backoff import next_poll_at
from ftp_gateway.remotes.state import PullProgress
from ftp_gateway.remotes.state_store import RemoteStateStore
from shared.contracts import streams, subjects
from shared.contracts.messages import Alert, decode
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValueStore
from shared.runtime.settings import Settings
from support.clients.ftp_gateway import Gateway, events, rows
from support.run_service import running
from support.servers.remotes import PASSWORD, Peer, SftpPeer, ftps_peer, sftp_peer
from support.stored_messages import messages
from support.waiting import until

DATA = b"1;Hello;https://shop.example\n2;Hi;https://shop.example\n"


@pytest.fixture(params=["sftp", "ftps"])
async def peer(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Peer]:
    if request.param == "sftp":
        async with sftp_peer(tmp_path / "peer") as sftp:
            yield sftp
    else:
        async with ftps_peer(tmp_path / "peer") as ftps:
            yield ftps


@pytest.fixture
async def sftp(tmp_path: Path) -> AsyncIterator[SftpPeer]:
    async with sftp_peer(tmp_path / "peer") as peer:
        yield peer


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits between polls are a tenth of what is configured."""

    def soon(remote: remote.Remote, now: datetime, **after: Any) -> datetime:
        return now + (next_poll_at(remote, now, **after) - now) / 10

    monkeypatch.setattr("ftp_gateway.remotes.scheduler.next_poll_at", soon)


class Remote:
    """One remote of the shop, over HTTP."""

    def __init__(self, gateway: Gateway, peer: Peer, name: str = "erp") -> None:
        self.gateway = gateway
        self.peer = peer
        self.path = f"/v1/apps/shop/remotes/{name}"

    async def put(self, **changed: Any) -> None:
        await self.gateway.put(self.path, self.peer.config(**changed))

    async def ask(self, method: str, path: str = "", *, status: int = 200, **options: Any) -> Any:
        url = f"{self.gateway.running.url}{self.path}{path}"
        async with self.gateway.http.request(method, url, **options) as answer:
            said = await answer.text()
            assert answer.status == status, said
            assert PASSWORD not in said
            return msgspec.json.decode(said) if said else None

    async def status(self) -> Any:
        return await self.ask("GET", "/status")

    async def failed_with(self, code: str) -> bool:
        found = (await self.status())["error"]
        return bool(found) and found["code"] == code

    async def looks_again(self) -> None:
        """Wait for a poll that began after now."""
        seen: set[str | None] = set()

        async def three() -> bool:
            seen.add((await self.status())["looked_at"])
            return len(seen - {None}) == 3

        await until(three)

    def offer(self, name: str, data: bytes = DATA) -> Path:
        path = self.peer.folder / "out" / name
        path.write_bytes(data)
        return path


async def alerts(bus: Bus, kind: str) -> list[Alert]:
    found = await messages(bus, streams.ALERTS, subjects.alert("ftp-gateway", "shop", kind))
    return [decode(message.data, Alert) for message in found]


async def test_files_are_pulled_once_and_left_where_they_are(gateway: Gateway, peer: Peer, bus: Bus) -> None:
    remote = Remote(gateway, peer)
    remote.offer("push.csv")
    remote.offer("notes.doc")
    remote.offer("half.csv.part")
    (peer.folder / "out" / "folder.csv").mkdir()
    await remote.put()

    await until(lambda: events(bus, "completed"))
    await remote.looks_again()

    assert ["1", "2"] == [row.ext_id for row in await rows(bus)]
    assert [] == await events(bus, "duplicate")
    status = await remote.status()
    assert (1, len(DATA), None) == (status["files_pulled"], status["bytes_pulled"], status["error"])
    assert (peer.folder / "out" / "push.csv").read_bytes() == DATA


async def test_a_new_content_under_the_old_name_is_another_file(gateway: Gateway, peer: Peer, bus: Bus) -> None:
    remote = Remote(gateway, peer)
    remote.offer("push.csv")
    await remote.put()
    await until(lambda: events(bus, "completed"))

    remote.offer("push.csv", b"3;New;https://shop.example\n")
    await until(lambda: _is_long(events, bus, 2))

    assert ["1", "2", "3"] == [row.ext_id for row in await rows(bus)]


async def _is_long(found: Any, bus: Bus, most: int) -> bool:
    return len(await found(bus, "completed")) >= most


async def test_a_pulled_file_is_deleted_or_archived(gateway: Gateway, peer: Peer, bus: Bus) -> None:
    remote = Remote(gateway, peer)
    remote.offer("push.csv")
    await remote.put(after="delete")
    await until(lambda: not (peer.folder / "out" / "push.csv").exists())

    await remote.put(after="archive", archive_path="/out/done")
    remote.offer("push.csv", b"3;New;https://shop.example\n")
    await until(lambda: _is_long(events, bus, 2))
    await until(lambda: not (peer.folder / "out" / "push.csv").exists())

    [archived] = (peer.folder / "out" / "done").iterdir()
    assert archived.name.endswith("-push.csv")
    assert archived.read_bytes() == b"3;New;https://shop.example\n"
    assert ["1", "2", "3"] == [row.ext_id for row in await rows(bus)]


async def test_profile_files_go_by_their_patterns(gateway: Gateway, peer: Peer, bus: Bus) -> None:
    remote = Remote(gateway, peer)
    remote.offer("crm_1.txt", b'~~~city\n1~~~"Ankara"\n')
    remote.offer("push_1.txt")
    await remote.put(push=["push_*"], profiles=["crm_*"])

    await until(lambda: _is_long(events, bus, 2))

    assert {("crm_1.txt", "profile"), ("push_1.txt", "push")} == {
        (event.file_name, event.kind) for event in await events(bus, "completed")
    }


async def test_a_file_that_is_served_in_part_is_not_pulled_until_it_is_whole(
    gateway: Gateway, peer: Peer, bus: Bus
) -> None:
    remote = Remote(gateway, peer)
    big = b"".join(b"%d;Hello;https://shop.example\n" % number for number in range(5000))
    remote.offer("big.csv", big)
    remote.offer("small.csv")
    peer.cut["big.csv"] = 70_000
    await remote.put(after="delete")

    await until(lambda: events(bus, "completed"))
    await until(lambda: remote.failed_with("conflict"))
    assert "70000 bytes of" in (await remote.status())["error"]["message"]
    assert ["small.csv"] == [event.file_name for event in await events(bus, "completed")]
    assert (peer.folder / "out" / "big.csv").exists()

    peer.cut.clear()
    await until(lambda: _is_long(events, bus, 2))
    assert 5000 + 2 == len(await rows(bus))


async def test_an_app_that_wants_more_than_a_close_gets_what_is_pulled(
    gateway: Gateway, sftp: SftpPeer, bus: Bus
) -> None:
    await gateway.put("/v1/apps/shop", {"completion": "row_count"})
    remote = Remote(gateway, sftp)
    remote.offer("whole.csv", DATA + b"#rows=2\n")
    remote.offer("cut.csv", b"3;Hello;https://shop.example\n#rows=2\n")
    await remote.put()
    await until(lambda: events(bus, "completed"))
    await until(lambda: events(bus, "failed"))
    await gateway.put("/v1/apps/shop", {"completion": "sha256"})
    remote.offer("plain.csv", b"4;Hello;https://shop.example\n")

    await until(lambda: _is_long(events, bus, 2))

    assert ["row_count"] == [event.reason for event in await events(bus, "failed")]
    assert ["1", "2", "4"] == [row.ext_id for row in await rows(bus)]


async def test_a_file_that_still_grows_is_waited_for(gateway: Gateway, peer: Peer, bus: Bus) -> None:
    remote = Remote(gateway, peer)
    path = remote.offer("push.csv", b"1;Hello;https://shop.example\n")
    await remote.put(settle_s=1.5)

    for number in range(2, 5):
        await asyncio.sleep(0.4)
        with path.open("ab") as file:
            file.write(b"%d;Hello;https://shop.example\n" % number)
    await until(lambda: events(bus, "completed"))

    assert ["1", "2", "3", "4"] == [row.ext_id for row in await rows(bus)]


async def test_reports_go_to_the_server(gateway: Gateway, peer: Peer) -> None:
    remote = Remote(gateway, peer)
    remote.offer("push.csv", DATA + b"no row\n")
    await remote.put(report_path="/reports")

    result = peer.folder / "reports" / "push.csv.result.json"
    await until(result.exists)

    assert msgspec.json.decode(result.read_bytes())["failed"] == 1
    assert b"columns" in (peer.folder / "reports" / "push.csv.report.csv").read_bytes()
    assert {"push.csv.result.json", "push.csv.report.csv"} == {path.name for path in result.parent.iterdir()}


async def test_a_wrong_password_is_reported_once_and_a_right_one_helps_at_once(
    gateway: Gateway, peer: Peer, bus: Bus
) -> None:
    remote = Remote(gateway, peer)
    remote.offer("push.csv")
    await remote.put(password="wrong-password-1", frequency_s=1)
    await until(lambda: len(peer.logins) >= 2)

    [told] = await alerts(bus, "remote-failing")
    assert "wrong-password-1" not in told.message
    assert await remote.failed_with("credentials")
    assert [] == await rows(bus)

    await remote.put(frequency=1440, frequency_s=None)
    await until(lambda: events(bus, "completed"))
    await until(lambda: alerts(bus, "remote-recovered"))
    assert (await remote.status())["error"] is None


async def test_a_host_key_is_shown_accepted_and_then_pinned(gateway: Gateway, sftp: SftpPeer, bus: Bus) -> None:
    remote = Remote(gateway, sftp)
    remote.offer("push.csv")
    await remote.put(host_key=None)
    await until(lambda: alerts(bus, "remote-unknown-host"))
    offered = (await remote.status())["offered_host_key"]
    assert {"public_key": sftp.public_key, "fingerprint": sftp.key.get_fingerprint()} == offered
    assert [] == sftp.logins

    await remote.ask("POST", "/accept-host-key", status=409, json={"fingerprint": "SHA256:other"})
    await remote.ask("POST", "/accept-host-key", json={"fingerprint": offered["fingerprint"]})
    await until(lambda: events(bus, "completed"))
    await remote.put(host_key=None, settle_s=1)
    assert sftp.public_key == (await remote.ask("GET"))["host_key"]
    assert (await remote.status())["offered_host_key"] is None

    sftp.become_another()
    await until(lambda: remote.failed_with("denied"))
    sftp.logins.clear()
    await until(lambda: _are(alerts, bus, "remote-unknown-host", 2))
    await remote.looks_again()
    assert 2 == len(await alerts(bus, "remote-unknown-host"))
    assert [] == sftp.logins
    assert sftp.public_key == (await remote.status())["offered_host_key"]["public_key"]


async def _are(found: Any, bus: Bus, kind: str, count: int) -> bool:
    return len(await found(bus, kind)) == count


async def test_the_connection_is_tested_step_by_step(gateway: Gateway, peer: Peer) -> None:
    remote = Remote(gateway, peer)
    remote.offer("push.csv")
    remote.offer("other.doc")

    good = await remote.ask("POST", "/test", json=peer.config())
    assert ["identity", "sign_in", "list"] == [step["name"] for step in good["steps"]]
    assert ("ok", "1 of 2 files fit the patterns") == (good["status"], good["steps"][-1]["message"])
    wrong = await remote.ask("POST", "/test", json=peer.config(password="wrong-password"))
    assert ["ok", "failed", "skipped"] == [step["status"] for step in wrong["steps"]]
    lost = await remote.ask("POST", "/test", json=peer.config(path="/nowhere"))
    assert ["ok", "ok", "failed"] == [step["status"] for step in lost["steps"]]


async def test_a_test_shows_the_key_that_is_to_be_accepted(gateway: Gateway, sftp: SftpPeer) -> None:
    remote = Remote(gateway, sftp)

    report = await remote.ask("POST", "/test", json=sftp.config(host_key=None))

    assert ["failed", "skipped", "skipped"] == [step["status"] for step in report["steps"]]
    assert sftp.public_key in report["steps"][0]["message"]
    assert [] == sftp.logins


async def test_links_are_not_followed(gateway: Gateway, sftp: SftpPeer, bus: Bus) -> None:
    remote = Remote(gateway, sftp)
    (sftp.folder / "secret.csv").write_bytes(b"9;Secret;\n")
    (sftp.folder / "out" / "link.csv").symlink_to("../secret.csv")
    remote.offer("push.csv")
    await remote.put(after="delete")

    await until(lambda: events(bus, "completed"))
    await remote.looks_again()

    assert ["1", "2"] == [row.ext_id for row in await rows(bus)]
    assert (sftp.folder / "out" / "link.csv").is_symlink()


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"host_key": "ssh-ed25519 nonsense"}, "host_key"),
        ({"private_key": "nonsense"}, "private_key"),
        ({"password": None}, "password"),
        ({"push": []}, "push"),
        ({"after": "archive"}, "archive_path"),
        ({"report_path": "/out/./"}, "report_path"),
        ({"certificate_sha256": "0" * 64}, "certificate_sha256"),
        ({"protocol": "ftps"}, "host_key"),
        ({"host": "a b"}, "host"),
        ({"schedule": "30 2 * *"}, "schedule"),
        ({"schedule": "0 0 30 2 *"}, "schedule"),
        ({"timezone": "Europe/Nowhere"}, "timezone"),
    ],
)
async def test_what_cannot_be_right_is_refused(
    gateway: Gateway, sftp: SftpPeer, changed: dict[str, Any], field: str
) -> None:
    remote = Remote(gateway, sftp)

    answer = await remote.ask("PUT", status=400, json=sftp.config(**changed))

    assert answer["error"]["field"] == field


async def test_an_app_sees_its_own_remotes_and_a_deleted_one_is_forgotten(
    gateway: Gateway, sftp: SftpPeer, bus: Bus, rival: dict[str, str]
) -> None:
    remote = Remote(gateway, sftp)
    remote.offer("push.csv")
    await remote.put()
    await until(lambda: events(bus, "completed"))

    async with gateway.http.get(f"{gateway.running.url}{remote.path}", headers=rival) as answer:
        assert answer.status == 403
    assert "***" == (await remote.ask("GET"))["password"]
    await remote.ask("DELETE", status=204)
    await until(lambda: _forgotten(bus))
    await remote.ask("GET", "/status", status=404)


async def _forgotten(bus: Bus) -> bool:
    found = await messages(bus, streams.REMOTES, "$KV.REMOTES.shop.erp.>")
    return all("KV-Operation" in message.headers for message in found)


async def test_only_one_of_two_replicas_pulls(gateway: Gateway, sftp: SftpPeer, bus: Bus, settings: Settings) -> None:
    async with running(SERVICE, settings):
        remote = Remote(gateway, sftp)
        for number in range(20):
            remote.offer(f"{number}.csv", b"%d;Hello;https://shop.example\n" % number)
        await remote.put()
        await until(lambda: _is_long(events, bus, 20))
        await remote.looks_again()

    assert 20 == len(await rows(bus))
    assert [] == await events(bus, "duplicate")


KEEPER = """
import sys
from pathlib import Path
from ftp_gateway.remotes.lock import lock_remote
print(lock_remote(Path(sys.argv[1]), "shop", "erp") is not None, flush=True)
sys.stdin.read()
"""


@asynccontextmanager
async def another_replica(spool: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that has the turn to pull from the shop's remote, and does nothing with it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KEEPER, str(spool), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert b"True\n" == await process.stdout.readline()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_the_remote_of_a_replica_that_is_killed_is_pulled_by_another_at_once(
    gateway: Gateway, sftp: SftpPeer, bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftp_gateway.remotes.scheduler.LOCK_RETRY_S", 0.05)
    (mine, theirs) = (Remote(gateway, sftp, name) for name in ("crm", "erp"))
    mine.offer("push.csv")

    async with another_replica(Path(settings.data_dir) / "ftp" / "spool") as replica:
        await theirs.put()
        await mine.put(push=["none*"])
        await mine.looks_again()
        assert (await theirs.status())["looked_at"] is None
        replica.kill()
        await replica.wait()
        await until(lambda: events(bus, "completed"))

    assert ["1", "2"] == [row.ext_id for row in await rows(bus)]


async def test_by_a_schedule_nothing_is_pulled_before_its_time(gateway: Gateway, sftp: SftpPeer) -> None:
    remote = Remote(gateway, sftp)
    remote.offer("push.csv")
    await remote.put(schedule="0 0 1 1 *", timezone="Europe/Istanbul")

    async def waits() -> bool:
        return (await remote.status())["next_look_at"] is not None

    await until(waits)
    assert (await remote.status())["looked_at"] is None
    assert [] == sftp.logins


async def test_what_was_due_by_a_schedule_when_its_replica_died_is_done_at_once(
    gateway: Gateway, sftp: SftpPeer, bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftp_gateway.remotes.scheduler.LOCK_RETRY_S", 0.05)
    remote = Remote(gateway, sftp)
    remote.offer("push.csv")

    async with another_replica(Path(settings.data_dir) / "ftp" / "spool") as replica:
        saved = await gateway.put(remote.path, sftp.config(schedule="0 0 1 1 *"))
        missed = PullProgress(next_look_at=datetime.now(UTC) - timedelta(hours=1), revision=saved["revision"])
        await RemoteStateStore(KeyValueStore(bus, streams.REMOTES), "shop", "erp").put_progress(missed)
        replica.kill()
        await until(lambda: events(bus, "completed"))

    assert ["1", "2"] == [row.ext_id for row in await rows(bus)]


async def test_a_server_without_a_listener_is_reported_in_plain_words(gateway: Gateway, sftp: SftpPeer) -> None:
    await sftp.close()

    report = await Remote(gateway, sftp).ask("POST", "/test", json=sftp.config())

    assert f"127.0.0.1:{sftp.port} cannot be reached: Connection refused" == report["steps"][0]["message"]


async def test_the_key_of_a_remote_that_was_tested_and_never_saved_is_forgotten(
    gateway: Gateway, sftp: SftpPeer, bus: Bus, settings: Settings
) -> None:
    await Remote(gateway, sftp).ask("POST", "/test", json=sftp.config(host_key=None))
    assert not await _forgotten(bus)

    async with running(SERVICE, settings):
        await until(lambda: _forgotten(bus))
