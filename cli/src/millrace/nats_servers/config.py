"""
Configuration of nats-server, made from `shared.contracts.grants`.

Every user signs in with an NKey: the configuration holds public keys, the seeds lie in a folder of their own. A server
is started in `millrace.nats_servers.server`; `millrace.verbs.nats_config` prints the configuration.
"""

import json
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

import nkeys  # type: ignore[import-untyped]  # the package has no types
from msgspec import Struct

from millrace.machine.secret_files import make_private, read_or_make
from shared.contracts.grants import GRANTS, denials, permissions
from shared.errors import InvalidError

ACCOUNT = "MILLRACE"
CLUSTER = "millrace"
CLUSTER_USER = "route"
CLUSTER_PASSWORD_VARIABLE = "NATS_CLUSTER_PASSWORD"
CLUSTER_ROUTES_VARIABLE = "NATS_CLUSTER_ROUTES"

MAX_PAYLOAD_BYTES = 8 << 20
"""
The server's default of 1 MiB would send most photographs that `storage.media.store` could take by HTTP instead; above
8 MiB the server itself warns (docs.nats.io, `max_payload`).
"""

SYNC = "always"
"""
JetStream's default syncs every two minutes, and Jepsen lost acknowledged messages to a power cut that way, replicas or
not (jepsen.io/analyses/nats-2.12.1). An acknowledged write is therefore on disk,
on a laptop as in production. One waiting publisher is not slower with it here; many at once get a third to a tenth of
the messages, which is still more than a thousand a second, each with many events.
"""


class ServerConfig(Struct, frozen=True, kw_only=True):
    """Settings of one nats-server. `port` and `monitor_port` -1 take a free one."""

    store: str
    """Folder of JetStream's files."""
    host: str = "127.0.0.1"
    port: int = 4222
    server_name: str = ""
    """Needed in a cluster, where it has to be another on each node and the same after a restart."""
    monitor_port: int | None = None
    """Serves `/healthz` on `host`; None opens no such port."""
    cluster_port: int | None = None
    """Makes this a node of a cluster; the other nodes and the password come from the environment."""
    ports_file_dir: str = ""
    """Folder in which the server writes the ports it took."""
    max_file_bytes: int | None = None
    """Most that JetStream may use of the disk; the server takes three quarters of what is free where this is None."""
    sync_interval: str = SYNC


def make_seed() -> str:
    """A new NKey seed for a user."""
    seed: bytes = nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER)
    return seed.decode()


def public_key(seed: str) -> str:
    """The public half of a user's seed. Raises `InvalidError` for anything else; never shows the seed."""
    try:
        key: bytes = nkeys.from_seed(seed.strip().encode()).public_key
        return key.decode()
    except (nkeys.NkeysError, ValueError):
        raise InvalidError("expected the NKey seed of a user, which begins with SU") from None


def seed_file(keys: Path, user: str) -> Path:
    """The file of a user's seed."""
    return keys / f"{user}.nk"


def ensure_seeds(keys: Path, users: Iterable[str] = tuple(GRANTS)) -> dict[str, str]:
    """
    Every user's seed from the folder, made first where there is none (0600, in a folder of mode 0700).

    Raises:
        InvalidError: One is no seed, or cannot be read or made; names its file.
    """
    make_private(keys)
    return {user: _seed(seed_file(keys, user)) for user in users}


def _seed(file: Path) -> str:
    seed = read_or_make(file, make_seed)
    try:
        public_key(seed)
    except InvalidError as error:
        raise InvalidError(error.message, field=str(file)) from None
    return seed


def render(config: ServerConfig, users: Mapping[str, str] | None) -> str:
    """
    The configuration as text.

    Args:
        users: Public key by user of `GRANTS`; None leaves the server open to everybody, which is for tests alone.
    """
    lines = [
        f"listen: {quote(f'{config.host}:{config.port}')}",
        *([f"server_name: {quote(config.server_name)}"] if config.server_name else []),
        f"max_payload: {MAX_PAYLOAD_BYTES}",
        *([f"http: {quote(f'{config.host}:{config.monitor_port}')}"] if config.monitor_port is not None else []),
        *([f"ports_file_dir: {quote(config.ports_file_dir)}"] if config.ports_file_dir else []),
        "",
        "jetstream {",
        f"  store_dir: {quote(config.store)}",
        f"  sync_interval: {config.sync_interval}",
        *([f"  max_file_store: {config.max_file_bytes}"] if config.max_file_bytes is not None else []),
        "}",
    ]
    if config.cluster_port is not None:
        lines += [
            "",
            f"# {CLUSTER_PASSWORD_VARIABLE} is the nodes' common secret, {CLUSTER_ROUTES_VARIABLE} a list such as",
            f'# ["nats://{CLUSTER_USER}:SECRET@nats-1:6222", "nats://{CLUSTER_USER}:SECRET@nats-2:6222"].',
            "# Both are read like this file: their quotes are part of them, as a bare secret may look like a number.",
            "cluster {",
            f"  name: {CLUSTER}",
            f"  listen: {quote(f'{config.host}:{config.cluster_port}')}",
            f"  authorization {{ user: {CLUSTER_USER}, password: ${CLUSTER_PASSWORD_VARIABLE} }}",
            f"  routes: ${CLUSTER_ROUTES_VARIABLE}",
            "}",
        ]
    if users is not None:
        lines += ["", "accounts {", f"  {ACCOUNT} {{", "    jetstream: enabled", "    users: ["]
        for user, key in users.items():
            lines += _user(user, key)
        lines += ["    ]", "  }", "}"]
    return "\n".join(lines) + "\n"


def _user(user: str, key: str) -> list[str]:
    allowed = permissions(user)
    return [
        f"      # {user}",
        "      {",
        f"        nkey: {quote(key)}",
        "        permissions {",
        "          publish {",
        *_subjects("allow", allowed.publish),
        *_subjects("deny", denials(user)),
        "          }",
        "          subscribe {",
        *_subjects("allow", allowed.subscribe),
        "          }",
        # A service may answer where it was asked, whatever inbox that is, once.
        *(['          allow_responses: { max: 1, expires: "1m" }'] if GRANTS[user].service else []),
        "        }",
        "      }",
    ]


def _subjects(verb: str, subjects: tuple[str, ...]) -> list[str]:
    quoted = [f"              {quote(subject)}" for subject in subjects]
    return [f"            {verb}: [", *quoted, "            ]"] if quoted else []


def quote(text: str) -> str:
    """A text as nats-server reads it, in its configuration and in a variable that this refers to."""
    # A `$` outside quotes is a variable to nats-server; inside JSON's quotes it is itself.
    return json.dumps(text, ensure_ascii=False)
