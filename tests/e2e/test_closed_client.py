"""A client of NATS that is let in no more ends its service, for a supervisor to start it again with what holds now."""

from functools import partial

import aiohttp
import pytest

from millrace.nats_servers.config import make_seed
from millrace.nats_servers.server import NatsServer
from shared.contracts.grants import GRANTS
from shared.contracts.services import SERVICE_NAMES
from support.servers.mesh import RunningMesh
from support.waiting import until

pytestmark = pytest.mark.timeout(240)


async def test_each_service_whose_key_nats_knows_no_more_is_not_ready_then_ends_and_says_why(mesh: RunningMesh) -> None:
    nats = mesh.local.nats
    assert isinstance(nats, NatsServer)

    await nats.kill()
    # The same place and port, and none of the keys that the services have.
    other_keys = {user: make_seed() for user in GRANTS}
    async with NatsServer(nats.directory, users=other_keys, port=nats.port):
        # They run on for a while, as the server may get its users back, and take no work meanwhile.
        for name in SERVICE_NAMES:
            await until(partial(_answers, mesh, name, "/readyz", 503))
            assert mesh.local.children[name].running
        codes = {name: await mesh.local.children[name].wait() for name in SERVICE_NAMES}

    assert codes == dict.fromkeys(SERVICE_NAMES, 1)
    for name in SERVICE_NAMES:
        log = mesh.folder.log(name).read_text()
        reason = "the client of NATS has closed for good: the server refuses to let it in, for 30 s now: "
        assert f"{reason}Authorization Violation" in log


async def _answers(mesh: RunningMesh, service: str, path: str, status: int) -> bool:
    try:
        async with mesh.http.get(mesh.url(service, path)) as answer:
            return answer.status == status
    except aiohttp.ClientError:
        return False
