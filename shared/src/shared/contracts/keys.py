"""
Keys of the key-value buckets, built and parsed side by side. No other file spells one.

A filter is a key with wildcards: `*` for one token, `>` for the rest. The subject of a key is `Bucket.subject_of`.
`shared.contracts.profile_keys` has the keys of `PROFILES`, which are many at a time.
"""

import hashlib

# CONFIG: <kind>.<app>.<id>, or <kind>.<app>[.<fixed id>] for a kind that an app has one of.


def config_key(kind: str, app_key: str, id: str = "") -> str:
    """The key in `CONFIG` of one value; `id` is empty for a kind whose keys end with the app."""
    return f"{kind}.{app_key}.{id}" if id else f"{kind}.{app_key}"


def parse_config_key(key: str) -> tuple[str, str]:
    """The app and the id of a key in `CONFIG`; the id is empty where the key has none."""
    _, app_key, *rest = key.split(".")
    return app_key, rest[0] if rest else ""


APP_KIND = "apps.*"
"""Keys in `CONFIG` of the apps themselves: a filter."""

_CONNECTOR = "connectors.*."
_TABLE = ".*.*"


def connector_of_kind(kind: str) -> str | None:
    """The connector whose keys in `CONFIG` a filter lets through, such as `kinesis`; None for another kind."""
    return kind.removeprefix(_CONNECTOR) if kind.startswith(_CONNECTOR) else None


def table_of_kind(kind: str) -> str | None:
    """The table below an app whose keys in `CONFIG` a filter lets through, such as `hooks`; None for another kind."""
    return kind.removesuffix(_TABLE) if kind.endswith(_TABLE) else None


# LEASES


LEASES_OF_HOOKS = "hooks.>"
"""All keys of hooks in `LEASES`: a filter."""

_LEASE = "hooks.partition."
_MEMBER = "hooks.member."


def lease_key(partition: int) -> str:
    """The key of the lease on one partition, in `LEASES`."""
    return f"{_LEASE}{partition:02d}"


def partition_of_lease_key(key: str) -> int | None:
    """The partition of a lease's key; None for another key."""
    number = key.removeprefix(_LEASE) if key.startswith(_LEASE) else ""
    return int(number) if number.isdecimal() else None


def member_key(name: str) -> str:
    """The key by which a replica of hooks says that it is there, in `LEASES`."""
    return f"{_MEMBER}{name}"


def replica_of_member_key(key: str) -> str | None:
    """The replica's name in a member's key; None for another key."""
    return key.removeprefix(_MEMBER) if key.startswith(_MEMBER) else None


# HOOKS


def backlog_key(app_key: str, partition: int, stream_name: str, number: int) -> str:
    """The key in `HOOKS` of a target's backlog; `number` tells apart those that one target has at a time."""
    name = hashlib.sha256(stream_name.encode()).hexdigest()[:32]
    return f"{app_key}.{partition}.{name}.{number}"


def backlog_keys(partition: int) -> str:
    """All keys in `HOOKS` of one partition: a filter."""
    return f"*.{partition}.*.*"


# DEFENDER


def defender_key(network: str) -> str:
    """The key in `DEFENDER` of an address; a key may hold no colon."""
    return network.replace(":", "_")


def network_of_defender_key(key: str) -> str:
    """The address of a key in `DEFENDER`."""
    return key.replace("_", ":")


# MEDIA


def media_key(app_key: str, kind: str, digest: str) -> str:
    """The key in `MEDIA` of an object; `digest` is half of the hash that stands for it, in hexadecimal."""
    return f"{app_key}.{kind}.{digest}"


def media_keys(app_key: str, kind: str | None = None) -> str:
    """All keys in `MEDIA` of one app, or of one kind of its objects: a filter."""
    return f"{app_key}.{kind or '*'}.*"


# RUNS and PLANS


def run_key(app_key: str, export_id: str, run_id: str) -> str:
    """The key in `RUNS` of a run of an export."""
    return f"{app_key}.{export_id}.{run_id}"


def run_keys(app_key: str, export_id: str) -> str:
    """All keys in `RUNS` of one export: a filter."""
    return f"{app_key}.{export_id}.*"


def parse_run_key(key: str) -> str:
    """The run of a key in `RUNS`."""
    return key.rpartition(".")[2]


def run_request_key(app_key: str, export_id: str, run_id: str) -> str:
    """The key in `RUNS` of a request to a run: cancel, or retry."""
    return f"{app_key}.{export_id}.{run_id}.request"


def export_progress_key(app_key: str, export_id: str) -> str:
    """The key in `PLANS` of an export's progress, or of the number of its lanes where it has several."""
    return f"{app_key}.{export_id}"


EVERY_EXPORT_PROGRESS = export_progress_key("*", "*")
"""The keys in `PLANS` of all exports, without those of their lanes: a filter."""


def lane_progress_key(app_key: str, export_id: str, shards: int, shard: int) -> str:
    """The key in `PLANS` of the progress of one lane out of `shards`."""
    key = export_progress_key(app_key, export_id)
    return key if shards == 1 else f"{key}.{shards}-{shard}"


def lane_progress_keys(app_key: str, export_id: str) -> str:
    """All keys in `PLANS` of the lanes of an export that has several: a filter."""
    return f"{app_key}.{export_id}.*"


def parse_export_progress_key(key: str) -> tuple[str, str]:
    """The app and the export of a key in `PLANS`."""
    app_key, export_id, *_ = key.split(".")
    return app_key, export_id


LAKE_EXPORT = "=lake"
"""Stands for the id of an export in the keys of an app's lake. No export has such a name."""


def replay_export(export_id: str, replay_id: str) -> str:
    """Stands for the id of an export in the keys of one of its replays. No export has such a name."""
    return f"{export_id}={replay_id}"


def parse_replay_export(name: str) -> tuple[str, str] | None:
    """The export and the replay of such a name; None for another one."""
    export_id, _, replay_id = name.partition("=")
    return (export_id, replay_id) if export_id and replay_id else None


# LAKE


def lake_day_key(app_key: str, event_type: str, date: str) -> str:
    """The key in `LAKE` of the files of one type and day, which is `YYYY-MM-DD`."""
    return f"{app_key}.{event_type}.{date}"


def lake_day_keys(app_key: str) -> str:
    """All keys in `LAKE` of one app: a filter."""
    return f"{app_key}.*.*"


def parse_lake_day_key(key: str) -> tuple[str, str, str]:
    """The app, the type and the day of a key in `LAKE`."""
    app_key, event_type, date = key.split(".")
    return app_key, event_type, date


# CLAIMS


def bucket_claims_key(place: str) -> str:
    """The key in `CLAIMS` of a customer's bucket; its name and endpoint may hold what a key may not."""
    return hashlib.sha256(place.encode()).hexdigest()[:32]


EVERY_BUCKET_CLAIMS = "*"
"""The keys in `CLAIMS` of all buckets: a filter."""


# REMOTES


def pulled_file_key(app_key: str, remote_id: str, name: str) -> str:
    """The key in `REMOTES` of a file that was pulled; a name may hold what a key may not."""
    return f"{app_key}.{remote_id}.taken.{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def pulled_file_keys(app_key: str, remote_id: str) -> str:
    """All keys in `REMOTES` of the files that one remote has pulled: a filter."""
    return f"{app_key}.{remote_id}.taken.*"


def pull_progress_key(app_key: str, remote_id: str) -> str:
    """The key in `REMOTES` of a remote's progress."""
    return f"{app_key}.{remote_id}.progress"


def offered_host_key_key(app_key: str, remote_id: str) -> str:
    """The key in `REMOTES` of a host key that a server showed and nobody has accepted."""
    return f"{app_key}.{remote_id}.offered"


def remote_keys(app_key: str, remote_id: str) -> str:
    """All keys in `REMOTES` of one remote: a filter."""
    return f"{app_key}.{remote_id}.>"


EVERY_PULL_PROGRESS = pull_progress_key("*", "*")
EVERY_OFFERED_HOST_KEY = offered_host_key_key("*", "*")
"""The keys of these kinds in `REMOTES` over all remotes: filters."""


def remote_of_key(key: str) -> tuple[str, str]:
    """The app and the remote of any key in `REMOTES`."""
    app_key, remote_id, _ = key.split(".", 2)
    return app_key, remote_id
