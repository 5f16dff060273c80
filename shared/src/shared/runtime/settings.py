"""
Settings of the operator: process environment -> `Settings`. The only reader of `os.environ`.

A field `nats_url` is `MILLRACE_NATS_URL`, or the content of the file that `MILLRACE_NATS_URL_FILE` names, by which
a container gets its secrets. Settings say how to reach the mesh and what this process may use of the machine. All else
is configuration and is in `CONFIG`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from shared.errors import InvalidError

PREFIX = "MILLRACE_"


class Settings(Struct, frozen=True, kw_only=True):
    """Every setting of every service, with its default."""

    nats_url: str = "nats://127.0.0.1:4222"
    """Servers to try, separated by commas."""
    nats_seed: str = ""
    """The NKey seed with which this process signs in (NATS ADR-14). Secret; use `MILLRACE_NATS_SEED_FILE`."""
    nats_replicas: Literal[1, 3] = 1
    """Copies of every stream and bucket that this mesh makes."""
    events_max_age_h: Annotated[float, Meta(ge=48)] = 72.0
    """Age until which `EVENTS` keeps an event. Not under 48 h: a customer's export may be refused for that long."""
    events_max_bytes: Annotated[int, Meta(ge=1 << 20)] = 8 << 30
    """Size at which `EVENTS` refuses new events rather than drop old ones."""

    secret_keys: str = ""
    """Fernet keys, separated by commas; the first encrypts, all decrypt. Secret; use `MILLRACE_SECRET_KEYS_FILE`."""

    http_host: str = "127.0.0.1"
    http_port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    """0 takes a free port, which `announce_file` then shows."""
    public_url: str = ""
    """The address under which others reach this service; the listener's own where it is empty."""
    announce_file: str = ""
    """File to which the service writes its addresses, as JSON, once it is ready."""

    sftp_host: str = "127.0.0.1"
    sftp_port: Annotated[int, Meta(ge=0, le=65535)] = 2022
    sftp_proxies: str = ""
    """Addresses and ranges, separated by commas, that must send a PROXY header; no other peer's is read."""
    sftp_connections: Annotated[int, Meta(ge=2)] = 1024
    """Connections at a time; those that have not signed in may be half of them."""
    sftp_connections_per_address: Annotated[int, Meta(ge=1)] = 20
    sftp_login_s: Annotated[float, Meta(gt=0)] = 20.0
    """Limit of signing in."""
    sftp_idle_s: Annotated[float, Meta(gt=0)] = 600.0
    """Limit of an idle session. Keep-alives and reads of attributes leave it idle."""
    sftp_ban_failures: Annotated[int, Meta(ge=1)] = 15
    """Wrong passwords and keys in half an hour after which an address is banned."""
    sftp_ban_s: Annotated[float, Meta(gt=0, le=86400)] = 900.0
    """Length of the first ban; each later one is twice as long, up to a day."""

    data_dir: str = ".millrace/data"
    """Local objects of storage, the spool of ftp-gateway, and the name of a replica of hooks."""

    reports_dir: str = ""
    """Reports that exporter leaves for ftp-gateway to show, where no bucket has them; both need the same directory.
    `reports` in `data_dir` where it is empty."""
    reports_bucket: str = ""
    """A bucket of S3 for them, which all replicas reach."""
    reports_region: str = "us-east-1"
    reports_endpoint_url: str = ""
    """Of a store that speaks S3; AWS's own where it is empty."""
    reports_access_key_id: str = ""
    reports_secret_access_key: str = ""
    """Secret; use `MILLRACE_REPORTS_SECRET_ACCESS_KEY_FILE`."""
    reports_keep_days: Annotated[float, Meta(ge=0, le=3650)] = 30.0
    """After which exporter removes a report; 0 leaves it to a lifecycle rule of the bucket."""

    smtp_host: str = ""
    """The server that takes e-mail; where it is empty none is sent."""
    smtp_port: Annotated[int, Meta(ge=1, le=65535)] = 587
    smtp_security: Literal["starttls", "tls", "none"] = "starttls"
    smtp_user: str = ""
    """Empty for a server without signing in."""
    smtp_password: str = ""
    """Secret; use `MILLRACE_SMTP_PASSWORD_FILE`."""
    smtp_sender: Annotated[str, Meta(pattern=r"^[^\s@<>]+@[^\s@<>]+$(?!\n)")] = "millrace@localhost"
    """The address that e-mail comes from."""

    storage_message_image_bytes: Annotated[int, Meta(ge=1)] = 10 << 20
    storage_widget_image_bytes: Annotated[int, Meta(ge=1)] = 10 << 20
    storage_attachment_bytes: Annotated[int, Meta(ge=1)] = 25 << 20
    storage_file_bytes: Annotated[int, Meta(ge=1)] = 5 << 20
    """The largest upload of each kind."""
    storage_widget_bytes: Annotated[int, Meta(ge=1)] = 20 << 20
    storage_widget_images: Annotated[int, Meta(ge=1)] = 200
    """The largest page of a widget, and the most images in it."""
    storage_thumbnails_px: Annotated[str, Meta(pattern=r"^[1-9][0-9]{1,3}(,[1-9][0-9]{1,3}){0,7}$")] = "320"
    """The longer sides of the thumbnails that are made, separated by commas; the first is the one that is shown."""
    storage_avif: bool = False
    """Take AVIF as an image too. Decoding it holds up everything else of the process (python-pillow/Pillow#9930)."""
    storage_memory_bytes: Annotated[int, Meta(ge=1 << 20)] = 64 << 20
    """Memory for uploads that are coming in; those that do not fit go to the disk."""
    storage_local: bool = True
    """Objects may lie in the data folder where no connector takes them; then all replicas need the same one."""
    sts_endpoint_url: str = ""
    """Address at which roles of AWS are assumed; AWS's own where it is empty."""

    allow_private_endpoints: bool = False
    """Let a connector name an endpoint on loopback or in a private network: for moto, MinIO and tests."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    stop_deadline_s: Annotated[float, Meta(gt=0)] = 25.0
    """Time for work in flight to finish after the first signal."""
    relist_s: Annotated[float, Meta(gt=0)] = 30.0
    """Period after which a watch is read anew in full, because watches have been seen to die silently."""


def read_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """
    Settings from the environment.

    Raises:
        InvalidError: A variable is unknown, has a wrong value, or its file cannot be read. Never shows the value.
    """
    environ = os.environ if environ is None else environ
    known = {name: f"{PREFIX}{name.upper()}" for name in Settings.__struct_fields__}
    # The command line's own variables share the prefix.
    known_variables = {v for name in known.values() for v in (name, f"{name}_FILE")} | {
        f"{PREFIX}PYTHON",
        f"{PREFIX}HOME",
    }
    unknown = sorted(name for name in environ if name.startswith(PREFIX) and name not in known_variables)
    if unknown:
        raise InvalidError("there is no such setting", field=unknown[0])
    found: dict[str, str] = {}
    for name, variable in known.items():
        if file := environ.get(f"{variable}_FILE"):
            try:
                found[name] = Path(file).read_text().strip()
            except OSError as error:
                raise InvalidError(f"cannot be read: {error.strerror}", field=f"{variable}_FILE") from None
        elif (value := environ.get(variable)) is not None:
            found[name] = value
    try:
        return msgspec.convert(found, Settings, strict=False)
    except msgspec.ValidationError as error:
        # msgspec names the type that was expected, and the path the field. Neither holds the value.
        message, _, path = str(error).partition(" - at ")
        raise InvalidError(message, field=known.get(path.strip("`").removeprefix("$."), path)) from None


def environment(names: tuple[str, ...]) -> dict[str, str]:
    """The process environment's values of `names`, for the command line's `${NAME}` in configuration files."""
    return {name: os.environ[name] for name in names if name in os.environ}


def child_environment(**settings: object) -> dict[str, str]:
    """The environment for a process of the mesh: this one's without its `MILLRACE_*`, plus `settings`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return inherited | {f"{PREFIX}{name.upper()}": str(value) for name, value in settings.items()}
