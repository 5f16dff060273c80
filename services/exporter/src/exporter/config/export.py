"""
Configuration of exports: the fields, the checks beyond their types, and the step to an `ExportJob`. No I/O.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Final

from msgspec import Meta, Struct
from msgspec.structs import force_setattr, replace

from exporter.access.policies import PolicyKind, PolicyPart
from exporter.destinations import DestinationConfig
from exporter.destinations.azure import AzureConfig
from exporter.destinations.connection_test import kept_probe_of
from exporter.destinations.gateway import GatewayConfig
from exporter.destinations.local import LocalFolderConfig
from exporter.destinations.platform import Platform
from exporter.destinations.s3 import S3Config
from exporter.exports.job import ExportJob
from exporter.exports.schedule import Schedule, schedule_of
from exporter.folders.claims import Folder
from exporter.formats import FormatName
from exporter.layouts import LAYOUTS, LayoutName
from exporter.pipeline.content import Content
from exporter.pipeline.lane import Shards
from exporter.pipeline.origin import Origin
from exporter.pipeline.ports import Format
from exporter.pipeline.selection import Data, EventSelection
from shared.config.registry import ConfigEntry, Kind
from shared.contracts.connection_report import Check
from shared.errors import DeniedError, InvalidError

Affiliate = Annotated[int, Meta(ge=1, le=2**53)]
Advertiser = Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{24}$(?!\n)")]


FieldName = Annotated[str, Meta(min_length=1, max_length=128)]
ExportedType = Annotated[str, Meta(pattern=r"^(users|millrace)\.[A-Za-z0-9_.-]{1,200}$(?!\n)")]

DEFAULT_LAYOUTS: Final[dict[Data, LayoutName]] = {"clicks": "affise", "conversions": "affise", "events": "currents"}
DEFAULT_FORMATS: Final[dict[LayoutName, FormatName]] = {"affise": "csv.gz", "currents": "avro"}
DEFAULT_MINUTES: Final[dict[LayoutName, int]] = {"affise": 15, "currents": 5}
EVENTS_DIRECTORY: Final = "currents"
KEPT_FIELDS: Final = frozenset({"id", "app_id", "time", "occurred_at"})
"""Fields that an export may not remove or hash: receivers drop repetitions and sort by them."""


EXPORTS_PER_APP: Final = 100
LANES_PER_APP: Final = 256
"""Of all exports of an app together. Each lane asks NATS again and again, also while it is idle."""
OPERATORS_ONLY: Final = "a local destination is created, changed and tested with an operator's token"


class Export(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    A continuous export: the clicks, the conversions or all events of an app, as files, every `frequency` minutes.

    It begins with the events that are published after it was created. `affiliates` (`partner_id`) and `advertisers`
    (`supplier_id`) select clicks and conversions; where both are given, an event must match both. `types` selects
    events; all where it is empty. The layout of clicks and conversions is `affise`, in `csv.gz` every 15 minutes;
    that of events is `currents`, in `avro` every 5. `shards` is the number of lanes that carry an export of events
    together: each has its share of the users, and any replica may run it. `remove` and `hash` name fields whose values
    become `[REDACTED]` or the SHA-256 of what they were. `frequency_s`, in seconds, takes precedence over `frequency`.
    While `active` is false nothing is sent, and events wait for as long as `EVENTS` keeps them. The directory of events
    is `currents` where none is given. With `plain_names` the names of files of clicks and conversions have neither
    spaces nor colons. With `manifest`, a file below `_manifest/` in the directory lists the files of each window, and
    is written after them.
    """

    data: Data
    destination: DestinationConfig
    frequency: Annotated[int, Meta(ge=1, le=1440)] | None = None
    frequency_s: Annotated[float, Meta(ge=1, le=86400)] | None = None
    layout: LayoutName | None = None
    format: FormatName | None = None
    affiliates: Annotated[tuple[Affiliate, ...], Meta(max_length=10_000)] = ()
    advertisers: Annotated[tuple[Advertiser, ...], Meta(max_length=10_000)] = ()
    types: Annotated[tuple[ExportedType, ...], Meta(max_length=200)] = ()
    remove: Annotated[tuple[FieldName, ...], Meta(max_length=200)] = ()
    hash: Annotated[tuple[FieldName, ...], Meta(max_length=200)] = ()
    plain_names: bool = False
    manifest: bool = False
    shards: Shards = 1
    active: bool = True

    def __post_init__(self) -> None:
        if self.data == "events" and not self.destination.directory:
            force_setattr(self, "destination", replace(self.destination, directory=EVENTS_DIRECTORY))

    @property
    def layout_name(self) -> LayoutName:
        """The layout, or the usual one of the data."""
        return self.layout or DEFAULT_LAYOUTS[self.data]

    @property
    def format_name(self) -> FormatName:
        """The format, or the usual one of the layout."""
        return self.format or DEFAULT_FORMATS[self.layout_name]

    @property
    def has_role(self) -> bool:
        """Whether a role of the customer's AWS writes its files."""
        return isinstance(self.destination, S3Config) and bool(self.destination.role_arn)

    @property
    def is_operators(self) -> bool:
        """Whether an operator's token alone may create or change it."""
        return isinstance(self.destination, LocalFolderConfig)

    def check_token(self, *, is_operator: bool) -> None:
        """Check that the caller may create, change or write it. Raises `DeniedError`."""
        if self.is_operators and not is_operator:
            raise DeniedError(OPERATORS_ONLY, field="destination.type")

    @property
    def s3(self) -> S3Config:
        """Its bucket of S3. Raises `InvalidError` where it has none."""
        if not isinstance(self.destination, S3Config):
            raise InvalidError("expected s3: other destinations have no policy of IAM", field="destination.type")
        return self.destination

    @property
    def kept_probe(self) -> str:
        """
        The end of the name of Test Connection's object where it may stay, since an export of events needs no right to
        delete; else empty. There is one for each encryption, because one that is there is not written again.
        """
        if self.data == "events" and isinstance(self.destination, S3Config):
            return kept_probe_of(f"{self.destination.sse} {self.destination.sse_kms_key_id}")
        return kept_probe_of("") if self.data == "events" and isinstance(self.destination, AzureConfig) else ""

    async def checks(self, app_key: str, platform: Platform) -> tuple[Check, ...]:
        """The steps of Test Connection before an object is written. Only S3 has some."""
        return await self.destination.checks(app_key, platform) if isinstance(self.destination, S3Config) else ()

    def schedule(self, app_key: str, export_id: str) -> Schedule:
        """The times of its runs."""
        minutes = self.frequency or DEFAULT_MINUTES[self.layout_name]
        return schedule_of(f"{app_key}.{export_id}", self.frequency_s or 60.0 * minutes)

    def folder(self, app_key: str) -> Folder:
        """The folder of its files, as it is claimed."""
        return Folder(self.destination.place(app_key), self.destination.folder)

    def check(self, *, allow_private: bool) -> None:
        """
        Check what the types do not express.

        Raises:
            InvalidError: A field is wrong; names it.
        """
        for field in ("affiliates", "advertisers", "types", "remove", "hash"):
            values = getattr(self, field)
            if len(set(values)) < len(values):
                raise InvalidError("expected each one once", field=field)
            if field in ("remove", "hash") and (kept := sorted(KEPT_FIELDS.intersection(values))):
                raise InvalidError(f"expected other fields than {', '.join(kept)}, which readers need", field=field)
        usual = DEFAULT_LAYOUTS[self.data]
        if self.layout_name != usual:
            raise InvalidError(f"expected {usual}, the layout of {self.data}", field="layout")
        if both := sorted(set(self.remove) & set(self.hash)):
            raise InvalidError(f"expected other fields than {', '.join(both)}, which remove names", field="hash")
        if self.shards > 1 and self.layout_name != "currents":
            raise InvalidError(f"expected 1, since an export of {self.data} has one lane", field="shards")
        others = ("affiliates", "advertisers") if self.data == "events" else ("types",)
        for field in others:
            if getattr(self, field):
                raise InvalidError(f"expected nothing, since an export of {self.data} has none", field=field)
        if self.plain_names and self.data == "events":
            raise InvalidError("expected false, since names of files of events are always plain", field="plain_names")
        if self.manifest and isinstance(self.destination, GatewayConfig):
            raise InvalidError("expected false, since /reports has no folders", field="manifest")
        self.destination.check(allow_private=allow_private)


EXPORTS = Kind(prefix="exports", type=Export)


def check_number(export: Export, export_id: str, entries: Iterable[ConfigEntry[Export]]) -> None:
    """Check that an app has room for an export beside its others. Raises `InvalidError`."""
    others = [entry.value.shards for entry in entries if entry.id != export_id]
    if len(others) >= EXPORTS_PER_APP:
        raise InvalidError(f"expected at most {EXPORTS_PER_APP} exports, found {len(others)} others", field="id")
    if sum(others) + export.shards > LANES_PER_APP:
        raise InvalidError(
            f"expected at most {LANES_PER_APP} shards in all exports of an app, found {sum(others)} in others",
            field="shards",
        )


def content_of(export: Export) -> Content:
    """The content of an export's files."""
    selection = EventSelection(
        data=export.data,
        affiliates=export.affiliates,
        advertisers=tuple(advertiser.lower() for advertiser in export.advertisers),
        types=export.types,
    )
    return Content(
        selection=selection,
        layout=export.layout_name,
        format=export.format_name,
        remove=export.remove,
        hash=export.hash,
        plain_names=export.plain_names,
        manifest=export.manifest,
    )


def policy_parts(
    app_key: str, export_id: str, export: Export, entries: Iterable[ConfigEntry[Export]]
) -> list[PolicyPart]:
    """
    The rights that an export needs in its bucket, and those of the app's other exports that write into it as the same
    user or role.

    Raises:
        InvalidError: It has no bucket of S3.
    """
    own = export.s3
    writes_as = (own.place(app_key), own.identity)
    parts = [_policy_part(export_id, export)]
    for entry in sorted(entries, key=lambda entry: entry.id):
        other = entry.value.destination
        is_known = entry.id == export_id or not own.identity
        if not is_known and isinstance(other, S3Config) and (other.place(app_key), other.identity) == writes_as:
            parts.append(_policy_part(entry.id, entry.value))
    return parts


def _policy_part(export_id: str, export: Export) -> PolicyPart:
    kind: PolicyKind = "currents" if export.data == "events" else "dashboard"
    return PolicyPart(export_id=export_id, kind=kind, folder=export.s3.folder, kms_key=export.s3.sse_kms_key_id)


def job_of(entry: ConfigEntry[Export], platform: Platform, formats: Mapping[str, Format]) -> ExportJob:
    """The job of an export at its current revision."""
    export = entry.value
    origin = Origin(
        app_key=entry.app_key,
        export_id=entry.id,
        cluster=platform.cluster,
        zone=platform.zone or platform.cluster,
        destination=export.destination.kind_in_names,
    )
    return ExportJob(
        app_key=entry.app_key,
        export_id=entry.id,
        revision=entry.revision,
        content=content_of(export),
        schedule=export.schedule(entry.app_key, entry.id),
        layout_of=lambda content: LAYOUTS[content.layout](origin, content),
        format_of=lambda content: formats[content.format],
        location=export.destination.location(entry.app_key),
        directory=export.destination.folder,
        shards=export.shards,
        open_destination=lambda: export.destination.open(entry.app_key, platform),
        operator=export.destination.operator,
        has_our_keys=export.destination.has_our_keys,
    )
