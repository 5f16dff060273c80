"""
Settings of the operator: process environment -> `Settings`. The only reader of `os.environ`.

A field `nats_url` is `MILLRACE_NATS_URL`, or the content of the file that `MILLRACE_NATS_URL_FILE` names, by which
a container gets its secrets. Settings say how to reach the mesh and what this process may use of the machine. All else
is configuration and is in `CONFIG`. Settings that one service alone reads are a subclass in its `config.py`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from shared.contracts.choices import choices_at, either
from shared.contracts.services import SERVICES
from shared.contracts.streams import BUCKETS, EVENTS, STREAMS, Bucket, Stream
from shared.errors import InvalidError

PREFIX = "MILLRACE_"
LEAST_BYTES = 1 << 20
"""Least size of a stream or a bucket."""

CUSTOMARY: Final[Mapping[str, tuple[str, ...]]] = {
    "https_proxy": ("HTTPS_PROXY", "https_proxy"),
    "http_proxy": ("HTTP_PROXY", "http_proxy"),
    "no_proxy": ("NO_PROXY", "no_proxy"),
    "ca_bundle": ("AWS_CA_BUNDLE", "SSL_CERT_FILE"),
}
"""Variables that other programs read too, by the setting for which each stands where that is not set itself."""


class Settings(Struct, frozen=True, kw_only=True):
    """Settings that several services or the command line read, with their defaults."""

    nats_url: str = "nats://127.0.0.1:4222"
    """Servers to try, separated by commas."""
    nats_seed: str = ""
    """The NKey seed with which this process signs in (NATS ADR-14). Secret; use `MILLRACE_NATS_SEED_FILE`."""
    nats_seed_file: str = ""
    """The file that `MILLRACE_NATS_SEED_FILE` names, for messages."""
    nats_replicas: Literal[1, 3] = 1
    """Copies of every stream and bucket that this mesh makes."""
    events_max_age_h: Annotated[float, Meta(ge=48)] = 72.0
    """Age until which `EVENTS` keeps an event. Not under 48 h: a customer's export may be refused for that long."""
    events_max_bytes: Annotated[int, Meta(ge=LEAST_BYTES)] = EVENTS.max_bytes
    """Size at which `EVENTS` refuses new events rather than drop old ones, before compression."""
    stream_max_bytes: str = ""
    """Sizes of other streams and buckets than their defaults: `PROFILES=4294967296,PUSH=2147483648`."""

    secret_keys: str = ""
    """Fernet keys, separated by commas; the first encrypts, all decrypt. Secret; use `MILLRACE_SECRET_KEYS_FILE`."""
    secret_keys_file: str = ""
    """The file that `MILLRACE_SECRET_KEYS_FILE` names; read again when it changes, so a new key needs no restart."""

    http_host: str = "127.0.0.1"
    http_port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    """0 takes a free port, which `announce_file` then shows."""
    http_connections: Annotated[int, Meta(ge=1)] = 4096
    """Open connections of HTTP, within what the limit of open files allows; at 1024 files it is 512."""
    http_connections_per_address: Annotated[int, Meta(ge=0)] = 1024
    """Of one IPv4 address or one /64 of IPv6, and never over half of all; 0 for no limit. Loopback has none."""
    http_trusted_proxies: str = ""
    """Addresses and networks of load balancers, separated by commas, which have no limit per address."""
    http_keepalive_s: Annotated[float, Meta(gt=0)] = 75.0
    """Time for which an idle connection stays open. Set it above that of a load balancer in front."""
    public_url: str = ""
    """The address under which others reach this service; the listener's own where it is empty."""
    announce_file: str = ""
    """File to which the service writes its addresses, as JSON, once it is ready."""

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
    reports_sse: Literal["off", "AES256", "aws:kms"] = "off"
    """The encryption on the server that the bucket is asked for with each report."""
    reports_sse_kms_key_id: str = ""
    """The key of `aws:kms`: its ARN, its id or `alias/<name>`."""
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

    sts_endpoint_url: str = ""
    """Address at which roles of AWS are assumed; AWS's own where it is empty."""

    allow_private_endpoints: bool = False
    """Let a connector name an endpoint on loopback or in a private network: for moto, MinIO and tests."""
    https_proxy: str = ""
    """The proxy of requests by HTTPS, http://[user:password@]host:port; `HTTPS_PROXY` where it is not set."""
    http_proxy: str = ""
    """The proxy of requests by HTTP; `HTTP_PROXY` where it is not set."""
    no_proxy: str = ""
    """Hosts, domains and networks that are reached without a proxy; `NO_PROXY` where it is not set."""
    ca_bundle: str = ""
    """A file of certificates in PEM, trusted in place of the usual authorities; `AWS_CA_BUNDLE` or `SSL_CERT_FILE`
    where it is not set."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    stop_deadline_s: Annotated[float, Meta(gt=0)] = 25.0
    """Time for work in flight to finish after the first signal."""
    relist_s: Annotated[float, Meta(gt=0)] = 30.0
    """Period after which a watch is read anew in full, because watches have been seen to die silently."""

    def __post_init__(self) -> None:
        """Check `stream_max_bytes` and the key of KMS. Raises `InvalidError`."""
        _parse_limits(self.stream_max_bytes)
        if (self.reports_sse == "aws:kms") != bool(self.reports_sse_kms_key_id):
            message = "expected a key of AWS KMS with MILLRACE_REPORTS_SSE=aws:kms, and none without"
            raise InvalidError(message, field=f"{PREFIX}REPORTS_SSE_KMS_KEY_ID")

    def limit_of(self, spec: Stream | Bucket) -> int:
        """The size in bytes at which a stream or a bucket is full."""
        if spec == EVENTS:
            return self.events_max_bytes
        return _parse_limits(self.stream_max_bytes).get(spec.name, spec.max_bytes)


def _parse_limits(text: str) -> dict[str, int]:
    names = [spec.name for spec in (*STREAMS, *BUCKETS) if spec != EVENTS]
    found: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        name, _, number = part.strip().partition("=")
        if name not in names or not number.isdecimal() or not LEAST_BYTES <= int(number) < 1 << 62:
            raise InvalidError(
                f"expected NAME=BYTES,NAME=BYTES with at least {LEAST_BYTES} bytes and a name of {', '.join(names)}",
                field=f"{PREFIX}STREAM_MAX_BYTES",
            )
        found[name] = int(number)
    return found


S = TypeVar("S", bound=Settings)


def read_settings(settings_type: type[S], environ: Mapping[str, str] | None = None) -> S:
    """
    Settings from the environment.

    Variables of another service's own settings are passed over: several services may share one environment.

    Args:
        settings_type: `Settings`, or the subclass of the service that reads them.

    Raises:
        InvalidError: A variable is unknown, has a wrong value, or its file cannot be read. Never shows the value.
    """
    environ = os.environ if environ is None else environ
    known = {name: f"{PREFIX}{name.upper()}" for name in settings_type.__struct_fields__}
    # The command line's own variables share the prefix.
    known_variables = {v for name in known.values() for v in (name, f"{name}_FILE")} | {
        f"{PREFIX}PYTHON",
        f"{PREFIX}HOME",
    }
    passed_over = _prefixes_of_others(settings_type)
    unknown = sorted(
        name
        for name in environ
        if name.startswith(PREFIX) and name not in known_variables and not name.startswith(passed_over)
    )
    if unknown:
        raise InvalidError("there is no such setting", field=unknown[0])
    found: dict[str, str] = {}
    for name, variable in known.items():
        if file := environ.get(f"{variable}_FILE"):
            try:
                found[name] = Path(file).read_text().strip()
            except OSError as error:
                raise InvalidError(f"{file} cannot be read: {error.strerror}", field=f"{variable}_FILE") from None
            except UnicodeDecodeError:
                raise InvalidError(f"{file}: expected text, found other bytes", field=f"{variable}_FILE") from None
        elif (value := environ.get(variable)) is not None:
            found[name] = value
        elif name in CUSTOMARY:
            found[name] = next((environ[other] for other in CUSTOMARY[name] if environ.get(other)), "")
    try:
        return msgspec.convert(found, settings_type, strict=False)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at ")
        # Of a choice msgspec names the value and not what was expected; of others the type, and never the value.
        if choices := choices_at(settings_type, path):
            message = f"Expected {either(choices)}"
        raise InvalidError(message, field=known.get(path.strip("`").removeprefix("$."), path)) from None


def _prefixes_of_others(settings_type: type[Settings]) -> tuple[str, ...]:
    """Prefixes of the variables that services have to themselves, without those of `settings_type`."""
    fields = settings_type.__struct_fields__
    prefixes = (service.settings for service in SERVICES if service.settings)
    return tuple(
        f"{PREFIX}{prefix.upper()}" for prefix in prefixes if not any(field.startswith(prefix) for field in fields)
    )


def service_variables() -> dict[str, str]:
    """The process environment's values of settings that one service alone reads, by field. For `millrace up`."""
    prefixes = tuple(f"{PREFIX}{service.settings.upper()}" for service in SERVICES if service.settings)
    return {name.removeprefix(PREFIX).lower(): value for name, value in os.environ.items() if name.startswith(prefixes)}


def environment(names: tuple[str, ...]) -> dict[str, str]:
    """The process environment's values of `names`, for the command line's `${NAME}` in configuration files."""
    return {name: os.environ[name] for name in names if name in os.environ}


def child_environment(**settings: object) -> dict[str, str]:
    """The environment for a process of the mesh: this one's without its `MILLRACE_*`, plus `settings`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return inherited | variables(settings)


def variables(settings: Mapping[str, object]) -> dict[str, str]:
    """The environment's variables of these settings."""
    return {f"{PREFIX}{name.upper()}": str(value) for name, value in settings.items()}
