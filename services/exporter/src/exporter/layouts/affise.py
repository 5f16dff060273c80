"""
Files as Affise's Data Fusion writes them: Year/Month/Day folders, names by the second, columns by Affise's vocabulary.

Configuration: none; an export names the layout.
Implementation: `CLICK_COLUMNS` and `CONVERSION_COLUMNS` list the columns. A cell is the event's attribute of the
column's name; `_CLICK_CELLS` and `_CONVERSION_CELLS` hold the columns that are computed otherwise. Nested names of
Affise's API are joined by `_` (`offer.title` is `offer_title`).
Considerations: Affise publishes no list of columns. These are the names of its API (statistics 3.0), in an order that
is fixed here and that readers may rely on. An attribute of another name is not written. Folders and names follow the
time of the run and not of the event, in UTC. Times in cells have no zone, as Affise's have none, and are UTC too.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Final

import msgspec

from exporter.pipeline.content import Content
from exporter.pipeline.events import ExportedEvent, Value, exported, read_message
from exporter.pipeline.origin import Origin
from exporter.pipeline.ports import FileName, Reading, WindowLimits
from exporter.pipeline.tables import Row, Table, table_of_text
from exporter.pipeline.transforms import Transforms

EPOCH = datetime(1970, 1, 1)
TIME = "%Y-%m-%d %H:%M:%S"

WRITTEN_OUT_DIGITS: Final = 400
"""The most digits, before or after the point, of a number with an exponent that a cell writes out. A double has 324."""
MONEY_DIGITS = 18
"""The most digits, before or after the point, of an amount that `earnings` is computed from."""

_SUBS = tuple(f"sub{number}" for number in range(1, 9))

CLICK_COLUMNS: tuple[str, ...] = (
    *("id", "click_id", "created_at", "user_id", "ip", "ua"),
    *("country", "country_name", "region_id", "region_name", "city", "city_id"),
    *("device", "device_type", "device_fullname", "device_model"),
    *("os", "os_id", "os_version", "os_fullname"),
    *("browser", "browser_version", "browser_fullname", "connection_type", "isp", "isp_code"),
    *("offer_id", "offer_offer_id", "offer_title", "offer_url", "offer_external_id"),
    *("landing_id", "landing_url", "landing_title", "prelanding_id", "prelanding_url", "prelanding_title"),
    *("partner_id", "partner_title", "partner_email", "partner_login", "partner_name", "partner_manager_id"),
    *("supplier_id", "supplier_manager_id", "referrer", *_SUBS),
    *("conversion_id", "has_conversions", "cbid", "ios_idfa", "android_id"),
    *("smart_id", "uniq", "ref_id", "ext1", "ext2", "ext3", "unid"),
)
"""The columns of a file of clicks."""

CONVERSION_COLUMNS: tuple[str, ...] = (
    *("id", "conversion_id", "action_id", "clickid", "status", "created_at", "click_time", "updated_at", "user_id"),
    *("offer_id", "offer_offer_id", "offer_title", "offer_url", "offer_external_id", "goal", "goal_value"),
    *("partner_id", "partner_title", "partner_email", "partner_login", "partner_name", "partner_manager_id"),
    *("supplier_id", "advertiser_id", "advertiser_title"),
    *("currency", "currency_id", "sum", "revenue", "payouts", "earnings", "price"),
    *("payment_type", "payment_status", "is_paid", "hold_date_expire"),
    *("ip", "country", "country_name", "district", "city", "city_id", "isp_code", "ua", "browser", "os"),
    *("device", "device_type", "referrer", "landing_id", "prelanding_id", "ref_id", *_SUBS),
    *(f"custom_field_{number}" for number in range(1, 8)),
    *("cbid", "comment", "ios_idfa", "android_id", "forensiq"),
)
"""The columns of a file of conversions."""


class AffiseLayout:
    """Satisfies `exporter.pipeline.ports.Layout`. A file has one part, of the name of the data."""

    limits: Final = WindowLimits()
    is_named_by_second: Final = True

    def __init__(self, origin: Origin, content: Content) -> None:
        data = content.selection.data
        columns = CLICK_COLUMNS if data == "clicks" else CONVERSION_COLUMNS
        derived = _CLICK_CELLS if data == "clicks" else _CONVERSION_CELLS
        self._app_key = origin.app_key
        self._transforms = Transforms(content.remove, content.hash)
        self._selection = content.selection
        self._table = table_of_text(data, columns)
        self._derived = tuple((columns.index(name), cell) for name, cell in derived.items())
        self._positions = {name: position for position, name in enumerate(columns)}

    def read(self, data: bytes, sequence: int = 0) -> Reading:
        """The rows of a message."""
        decoded = read_message(data, self._app_key)
        event_type = self._selection.event_type
        found = [exported(event) for event in decoded.events if event.type == event_type]
        rows = [self._row(event) for event in found if self._selection.matches(event)]
        return Reading({self._selection.data: rows}, len(found), decoded.dropped, decoded.reason)

    def table(self, part: str) -> Table:
        """The columns, in an order that is fixed."""
        return self._table

    def name(self, name: FileName) -> str:
        """The name below the export's directory, for a file of this second."""
        at = name.named_at.astimezone(UTC)
        return f"{at:%Y/%m/%d}/{at.strftime(TIME)}"

    def _row(self, event: ExportedEvent) -> Row:
        # A value that the event does not have is empty.
        row = [""] * len(self._positions)
        # An event has far fewer attributes than a file has columns.
        for name, value in event.attributes.items():
            if (position := self._positions.get(name)) is not None:
                row[position] = value if type(value) is str else text(value)
        for position, cell in self._derived:
            row[position] = cell(event)
        return [*map(self._transforms.apply, self._table.columns, row)] if self._transforms else row


def text(value: Value) -> str:
    """A value as a cell. Numbers keep their digits and have no exponent; a list or an object is JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    data = bytes(value)
    if data[:1] in (b"{", b"["):
        return msgspec.json.format(data, indent=-1).decode()
    return _written_out(data.decode())


def _written_out(number: str) -> str:
    if "e" not in number and "E" not in number:
        return number
    try:
        value = Decimal(number)
    except InvalidOperation:
        # JSON allows any exponent, `Decimal` one of eighteen digits.
        return number
    return format(value, "f") if abs(value.adjusted()) <= WRITTEN_OUT_DIGITS else number


def _created_at(event: ExportedEvent) -> str:
    try:
        # `str` of a time without a zone and without a fraction has the format TIME, and is cheaper.
        return str(EPOCH + timedelta(seconds=event.occurred_at // 1000))
    except OverflowError:
        # `datetime` ends with the year 9999.
        return ""


def _first(event: ExportedEvent, *names: str) -> str:
    """The first of these attributes that is not empty."""
    for name in names:
        if found := text(event.attributes.get(name)):
            return found
    return ""


def _earnings(event: ExportedEvent) -> str:
    """The attribute `earnings`, or revenue less payouts, exactly."""
    if earnings := _first(event, "earnings"):
        return earnings
    revenue, payouts = (_decimal(event.attributes.get(name)) for name in ("revenue", "payouts"))
    return "" if revenue is None or payouts is None else format(revenue - payouts, "f")


def _decimal(value: Value) -> Decimal | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        number = Decimal(text(value))
    except InvalidOperation:
        return None
    # An exponent of a million would be a cell of a million digits.
    return number if number.is_finite() and abs(number.adjusted()) <= MONEY_DIGITS else None


Cell = Callable[[ExportedEvent], str]

_CLICK_CELLS: dict[str, Cell] = {
    "id": lambda event: _first(event, "id") or event.id,
    "click_id": lambda event: _first(event, "click_id", "id") or event.id,
    "created_at": _created_at,
    "user_id": lambda event: event.user_id,
    "ios_idfa": lambda event: _first(event, "ios_idfa", "idfa"),
}
_CONVERSION_CELLS: dict[str, Cell] = {
    "id": lambda event: _first(event, "id") or event.id,
    # Affise: an action id that came with the advertiser's postback is the conversion's id, else the click's is.
    "conversion_id": lambda event: _first(event, "conversion_id", "action_id", "clickid", "click_id"),
    "clickid": lambda event: _first(event, "clickid", "click_id"),
    "created_at": _created_at,
    "updated_at": lambda event: _first(event, "updated_at", "updatedAt"),
    "user_id": lambda event: event.user_id,
    "earnings": _earnings,
}
