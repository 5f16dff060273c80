"""`millrace nats-config`: print the nats-server configuration with the permissions of every user."""

import argparse
from pathlib import Path

from millrace.machine.ports import check_port
from millrace.nats_servers.config import ServerConfig, ensure_seeds, public_key, render
from shared.errors import InvalidError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `millrace nats-config`."""
    parser.add_argument(
        "--keys", type=Path, required=True, metavar="DIR", help="folder of the seeds; missing ones are made"
    )
    parser.add_argument("--store", default="/data/jetstream", metavar="DIR", help="JetStream's folder [%(default)s]")
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on [%(default)s]")
    parser.add_argument("--port", type=int, default=4222, help="port for clients [%(default)s]")
    parser.add_argument("--monitor-port", type=int, metavar="PORT", help="port for /healthz; none without this option")
    parser.add_argument("--server-name", default="", metavar="NAME", help="this node's name, needed in a cluster")
    parser.add_argument("--cluster-port", type=int, metavar="PORT", help="make it a node of a cluster, on this port")


def run(args: argparse.Namespace) -> int:
    """Print the configuration. It holds no secret."""
    if args.cluster_port is not None and not args.server_name:
        raise InvalidError("a node of a cluster needs a name that lasts", field="--server-name")
    for option in ("port", "monitor_port", "cluster_port"):
        if (port := getattr(args, option)) is not None:
            check_port(port, f"--{option.replace('_', '-')}")
    seeds = ensure_seeds(args.keys)
    config = ServerConfig(
        store=args.store,
        host=args.host,
        port=args.port,
        server_name=args.server_name,
        monitor_port=args.monitor_port,
        cluster_port=args.cluster_port,
    )
    print("# Made by millrace nats-config. The users' seeds are <user>.nk in the folder given as --keys.\n")
    print(render(config, {user: public_key(seed) for user, seed in seeds.items()}), end="")
    return 0
