"""Keys of the key-value buckets, built and parsed side by side. No other file spells one."""

import hashlib


def lease_key(partition: int) -> str:
    """The key of the lease on one partition, in `LEASES`."""
    return f"hooks.partition.{partition:02d}"


def member_key(name: str) -> str:
    """The key by which a replica of hooks says that it is there, in `LEASES`."""
    return f"hooks.member.{name}"


def backlog_key(app_key: str, partition: int, stream_name: str, number: int) -> str:
    """The key in `HOOKS` of what a target has to catch up; `number` tells apart those that one target has at a time."""
    name = hashlib.sha256(stream_name.encode()).hexdigest()[:32]
    return f"{app_key}.{partition}.{name}.{number}"


def backlog_keys(partition: int) -> str:
    """All keys in `HOOKS` of one partition: a filter."""
    return f"*.{partition}.*.*"


def defender_key(network: str) -> str:
    """The key in `DEFENDER` of an address; a key may hold no colon."""
    return network.replace(":", "_")


def network_of_defender_key(key: str) -> str:
    """The address of a key in `DEFENDER`."""
    return key.replace("_", ":")
