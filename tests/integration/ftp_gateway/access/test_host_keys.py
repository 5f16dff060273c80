"""Host keys: made once for all replicas, sealed, changed while clients learn the new ones; modern algorithms."""

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncssh
from msgspec import json

from ftp_gateway.access.host_keys import HOST_KEYS, OWNER
from ftp_gateway.sftp.host_key_algorithms import ensure_host_keys
from millrace.verbs.rekey import rekey
from shared.config.registry import Registry
from shared.config.secret_keys import generate_key
from shared.config.secret_store import SecretStore
from shared.contracts.streams import CONFIG
from shared.messaging.bus import Bus
from shared.runtime.settings import Settings
from support.clients.ftp_gateway import Gateway
from support.waiting import until


async def ask(gateway: Gateway, method: str, path: str = "", status: int = 200) -> Any:
    async with gateway.http.request(method, f"{gateway.running.url}/v1/host-keys{path}") as answer:
        assert answer.status == status, await answer.text()
        return json.decode(await answer.read() or b"null")


async def seen(gateway: Gateway, algorithm: str = "ssh-ed25519") -> str:
    """The fingerprint that a client sees."""
    key = await asyncssh.get_server_host_key(gateway.host, gateway.port, config=None, server_host_key_algs=[algorithm])
    assert key is not None
    return key.get_fingerprint()


async def test_the_key_of_an_earlier_version_is_taken_over_and_its_file_removed(
    gateway: Gateway, bus: Bus, host_keys: bytes, settings: Settings
) -> None:
    shown = (await ask(gateway, "GET"))["generations"]
    at_rest = await bus.last_message(CONFIG, f"$KV.CONFIG.host_keys.{OWNER}")

    expected = [key.get_fingerprint() for key in _keys(host_keys)]
    assert [(1, True, expected)] == [(each["generation"], each["in_use"], each["fingerprints"]) for each in shown]
    assert expected == [await seen(gateway), await seen(gateway, "rsa-sha2-512")]
    assert not (Path(settings.data_dir) / "ftp" / "host_key").exists()
    assert at_rest is not None
    assert b"PRIVATE" not in at_rest.data


def _keys(pem: bytes) -> list[asyncssh.SSHKey]:
    ends = b"-----END OPENSSH PRIVATE KEY-----\n"
    return [asyncssh.import_private_key(part + ends) for part in pem.split(ends) if part.strip()]


async def test_replicas_that_start_at_once_agree_on_the_keys_of_one(
    registry: Registry, admin: dict[str, str], tmp_path: Path
) -> None:
    one, two = await asyncio.gather(
        *(ensure_host_keys(registry, tmp_path / name, lambda: datetime.now(UTC)) for name in ("one", "two"))
    )

    assert one == two
    assert ["ssh-ed25519", "ssh-rsa"] == [key.public.split()[0] for key in one.generations[0].keys]


async def test_replicas_that_start_at_once_take_over_the_one_file_that_they_share(
    registry: Registry, admin: dict[str, str], host_keys: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "host_key"
    file.write_bytes(host_keys)

    found = await asyncio.gather(*(ensure_host_keys(registry, file, lambda: datetime.now(UTC)) for _ in range(8)))

    expected = [key.get_fingerprint() for key in _keys(host_keys)]
    assert [expected] * 8 == [[key.fingerprint for key in keys.generations[0].keys] for keys in found]
    assert not file.exists()


async def test_a_file_with_another_key_stays_and_is_not_used(
    registry: Registry, admin: dict[str, str], host_keys: bytes, tmp_path: Path
) -> None:
    first, late = tmp_path / "first", tmp_path / "late"
    first.write_bytes(host_keys)
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(late)

    kept = [await ensure_host_keys(registry, file, lambda: datetime.now(UTC)) for file in (first, late)]

    assert kept[0] == kept[1]
    assert [False, True] == [first.exists(), late.exists()]


async def test_new_keys_are_announced_then_used_and_old_ones_forgotten(gateway: Gateway) -> None:
    old = await seen(gateway)
    announced: asyncio.Queue[tuple[int, int]] = asyncio.Queue()

    def hear(added: list[asyncssh.SSHKey], removed: list[asyncssh.SSHKey], *rest: object) -> None:
        announced.put_nowait((len(added), len(removed)))

    async def learn() -> tuple[int, int]:
        known = asyncssh.import_known_hosts(f"* {first[0]}\n* {first[1]}\n")
        async with gateway.connect(known_hosts=known, server_host_keys_handler=hear):
            async with asyncio.timeout(5):
                return await announced.get()

    first = (await ask(gateway, "GET"))["generations"][0]["public_keys"]
    assert (0, 0) == await learn()
    new = (await ask(gateway, "POST"))["generations"][1]["fingerprints"]
    await until(lambda: _is(learn, (2, 0)))
    assert old == await seen(gateway)

    await ask(gateway, "POST", "/2/use")
    await until(lambda: _sees(gateway, new[0]))
    await ask(gateway, "DELETE", "/2", 409)
    await ask(gateway, "DELETE", "/1", 204)
    await ask(gateway, "DELETE", "/1", 404)
    await ask(gateway, "POST", "/7/use", 404)
    await ask(gateway, "POST", "/first/use", 400)
    assert [new] == [each["fingerprints"] for each in (await ask(gateway, "GET"))["generations"]]


async def _is(learn: Any, expected: tuple[int, int]) -> bool:
    found: tuple[int, int] = await learn()
    return found == expected


async def _sees(gateway: Gateway, fingerprint: str) -> bool:
    return await seen(gateway) == fingerprint


async def test_rekey_reaches_the_host_keys(gateway: Gateway, bus: Bus, secret_key: str) -> None:
    before = await seen(gateway)
    new_key = generate_key()
    outcome = await rekey(Registry(bus, SecretStore([new_key, secret_key]), service="test", relist_s=30))
    kept = await Registry(bus, SecretStore([new_key]), service="test", relist_s=30).get(HOST_KEYS, OWNER)

    assert () == outcome.refused
    assert before == kept.value.generations[0].keys[0].fingerprint


async def test_ssh_audit_finds_no_failure(gateway: Gateway) -> None:
    audit = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ssh_audit", "-jj", "--skip-rate-test", "-p", str(gateway.port), gateway.host),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await audit.communicate()
    found = json.decode(said)

    failures = [
        (kind, each["algorithm"], each["notes"]["fail"])
        for kind in ("kex", "key", "enc", "mac")
        for each in found[kind]
        if each.get("notes", {}).get("fail")
    ]
    assert [] == failures
    assert ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com"] == [each["algorithm"] for each in found["enc"]][:2]
    assert {"ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256"} == {each["algorithm"] for each in found["key"]}
