"""A client of NATS that has closed for good ends its service, for a supervisor to start it again."""

import os
import signal

from millrace.nats_servers.server import NatsServer
from shared.contracts.services import SERVICE_NAMES
from support.servers.mesh import RunningMesh


async def test_each_service_ends_and_says_why(mesh: RunningMesh) -> None:
    nats = mesh.local.nats
    assert isinstance(nats, NatsServer)
    config = nats.directory / "nats-server.conf"
    config.write_text(f"max_control_line: 16\n{config.read_text()}")

    # The server reads its configuration anew. The next line that a service sends is longer.
    os.kill(nats.children[0].pid, signal.SIGHUP)

    codes = {name: await mesh.local.children[name].wait() for name in SERVICE_NAMES}
    assert codes == dict.fromkeys(SERVICE_NAMES, 1)
    for name in SERVICE_NAMES:
        log = mesh.folder.log(name).read_text().lower()
        assert "the client of nats has closed for good: maximum control line exceeded" in log
