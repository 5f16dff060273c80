"""The ftp gateway as the user of NATS that it is in production: its permissions are enough for all it does."""

from datetime import UTC, datetime
from pathlib import Path

import aiohttp
from msgspec import structs

from ftp_gateway.app import SERVICE
from ftp_gateway.config import FtpGatewaySettings
from millrace.nats_servers.config import ensure_seeds
from millrace.nats_servers.server import NatsServer
from shared.config.registry import Registry
from shared.config.secret_keys import generate_key
from shared.config.secret_store import SecretStore
from shared.config.tokens import TOKENS, Token, new_token, token_hash
from shared.contracts import streams, subjects
from shared.messaging.connection import connect
from shared.messaging.provisioning.making import provision_mesh
from shared.profiles.store import Profiles
from shared.runtime.telemetry import Metrics
from support.clients.ftp_gateway import ROW, Gateway, process
from support.run_service import running
from support.waiting import until


async def test_every_path_of_a_file_works_with_the_rights_of_the_service(tmp_path: Path) -> None:
    seeds = ensure_seeds(tmp_path / "keys")
    key, token = generate_key(), new_token()
    async with NatsServer(tmp_path / "nats", users=seeds) as server:
        settings = FtpGatewaySettings(
            nats_url=server.url,
            nats_seed=seeds["ftp-gateway"],
            secret_keys=key,
            http_port=0,
            sftp_port=0,
            data_dir=str(tmp_path / "data"),
        )
        await provision_mesh(structs.replace(settings, nats_seed=seeds["provision"]), wait_s=5)
        async with connect("operator", server.url, seed=seeds["operator"], metrics=Metrics(), wait_s=5) as bus:
            registry = Registry(bus, SecretStore([key]), service="test", relist_s=30)
            issued = Token(scopes=("admin",), created_at=datetime.now(UTC))
            await registry.put(TOKENS, token_hash(token), "", issued)
        headers = {"Authorization": f"Bearer {token}"}
        async with running(SERVICE, settings) as service, aiohttp.ClientSession(headers=headers) as http:
            gateway = Gateway(service, http)
            await gateway.put("/v1/apps/shop", {"settle_s": 0, "unknown_users": "reject"})
            await gateway.user()
            async with gateway.connect() as connection, connection.start_sftp_client() as client:
                pushed = await process(client, "/push.csv", ROW)
                again = await process(client, "/again.csv", ROW)
                refused = await process(client, "/Profile/a.txt", b"~~~city\n1~~~1\n")
                await gateway.put("/v1/apps/shop", {"settle_s": 0})
                profile = await process(client, "/Profile/b.txt", b"~~~city\n1~~~1\n")
                await client.open("/part.csv", "wb")
                connection.abort()

            await until(lambda: service.mesh.bus.last_message(streams.FILES, subjects.ftp_file("shop", "partial")))
            await until(lambda: Profiles(service.mesh.bus).get("shop", "1"))
            states = {file["state"] for file in await gateway.files()}

    assert ["done", "duplicate", "done_with_errors", "done"] == [
        found["outcome"] for found in (pushed, again, refused, profile)
    ]
    assert {"completed", "duplicate", "partial"} == states
