"""Routes for operators, of scope `admin`: bans of addresses, and the host keys of the SFTP server."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from ftp_gateway.access.host_keys import (
    HOST_KEYS,
    OWNER,
    HostKeys,
    check_generations,
    with_generation_in_use,
    with_new_generation,
    without_generation,
)
from ftp_gateway.sftp.host_key_algorithms import make_host_keys
from ftp_gateway.state import State
from shared.client_addresses import parse_address
from shared.config.registry import ConfigEntry
from shared.errors import InvalidError
from shared.http.routes import Query, Route
from shared.http.server import Call

MAX_BANS = 1000


class Ban(Struct, frozen=True, kw_only=True):
    """A banned address; of IPv6, the first one of a /64. `times` counts its bans."""

    address: str
    until: datetime
    times: int


class Bans(Struct, frozen=True, kw_only=True):
    """Banned addresses, the longest ban first."""

    bans: tuple[Ban, ...]


class HostKeyGeneration(Struct, frozen=True, kw_only=True):
    """One generation of host keys. `fingerprints` are as OpenSSH shows them, `public_keys` as in `known_hosts`."""

    generation: int
    in_use: bool
    made_at: datetime
    fingerprints: tuple[str, ...]
    public_keys: tuple[str, ...]


class HostKeyGenerations(Struct, frozen=True, kw_only=True):
    """Every generation of host keys, the one in use first."""

    generations: tuple[HostKeyGeneration, ...]


async def list_bans(call: Call[State]) -> Bans:
    """List the bans that this replica knows: all of them, a moment after they began."""
    found = call.state.defender.bans()[: call.query_values["limit"]]
    return Bans(
        bans=tuple(
            Ban(address=score.address, until=score.banned_until, times=score.bans)
            for score in found
            if score.banned_until is not None
        )
    )


async def lift_ban(call: Call[State]) -> None:
    """Lift a ban, on all replicas."""
    if parse_address(call.path["address"]) is None:
        raise InvalidError("expected an IPv4 or IPv6 address", field="address")
    await call.state.defender.lift(call.path["address"])


async def show_host_keys(call: Call[State]) -> HostKeyGenerations:
    """Show the host keys that clients compare with."""
    return _shown((await _host_keys(call)).value)


async def add_host_keys(call: Call[State]) -> HostKeyGenerations:
    """Make a generation of keys, announced to clients from now on, and not used before an operator says so."""
    known = await _host_keys(call)
    check_generations(known.value)
    made = await asyncio.to_thread(make_host_keys)
    return await _keep(call, known, with_new_generation(known.value, made, datetime.now(UTC)))


async def use_host_keys(call: Call[State]) -> HostKeyGenerations:
    """Use one generation; the others stay announced."""
    known = await _host_keys(call)
    return await _keep(call, known, with_generation_in_use(known.value, _generation(call)))


async def remove_host_keys(call: Call[State]) -> None:
    """Remove one generation. Clients that heed announcements forget it."""
    known = await _host_keys(call)
    await _keep(call, known, without_generation(known.value, _generation(call)))


def _generation(call: Call[State]) -> int:
    try:
        number: int = msgspec.convert(call.path["generation"], Annotated[int, Meta(ge=1)], strict=False)
    except msgspec.ValidationError as error:
        raise InvalidError(str(error), field="generation") from None
    return number


async def _host_keys(call: Call[State]) -> ConfigEntry[HostKeys]:
    return await call.registry.get(HOST_KEYS, OWNER)


async def _keep(call: Call[State], known: ConfigEntry[HostKeys], changed: HostKeys) -> HostKeyGenerations:
    stored = await call.registry.put(HOST_KEYS, OWNER, "", changed, expect_revision=known.revision)
    return _shown(stored.value)


def _shown(known: HostKeys) -> HostKeyGenerations:
    return HostKeyGenerations(
        generations=tuple(
            HostKeyGeneration(
                generation=generation.number,
                in_use=generation.number == known.in_use,
                made_at=generation.made_at,
                fingerprints=tuple(key.fingerprint for key in generation.keys),
                public_keys=tuple(key.public for key in generation.keys),
            )
            for generation in known.ordered
        )
    )


ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        "/v1/bans",
        list_bans,
        "List the addresses that are kept out for wrong passwords and keys",
        reply=Bans,
        scope="admin",
        query={"limit": Query("How many", Annotated[int, Meta(ge=1, le=MAX_BANS)], 100, formerly="most")},
    ),
    Route(
        "DELETE",
        "/v1/bans/{address:.+}",
        lift_ban,
        "Let an address in again",
        scope="admin",
        status=204,
    ),
    Route(
        "GET", "/v1/host-keys", show_host_keys, "Show the server's host keys", reply=HostKeyGenerations, scope="admin"
    ),
    Route(
        "POST",
        "/v1/host-keys",
        add_host_keys,
        "Make new host keys and announce them to clients, beside those in use",
        reply=HostKeyGenerations,
        scope="admin",
    ),
    Route(
        "POST",
        "/v1/host-keys/{generation}/use",
        use_host_keys,
        "Use these host keys; the others stay announced",
        reply=HostKeyGenerations,
        scope="admin",
    ),
    Route(
        "DELETE",
        "/v1/host-keys/{generation}",
        remove_host_keys,
        "Remove host keys that are not in use",
        scope="admin",
        status=204,
    ),
)
