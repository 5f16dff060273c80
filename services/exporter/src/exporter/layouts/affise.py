"""
Files as Affise's Data Fusion writes them: Year/Month/Day folders, names by the second, columns by Affise's vocabulary.

Configuration: none; an export names the layout.
Implementation: `CLICK_COLUMNS` and `CONVERSION_COLUMNS` list the columns. A cell is the event's attribute of the
column's name; `_complete_click` and `_complete_conversion` write those that are computed otherwise. Nested names of
Affise's API are joined by `_` (`offer.title` is `offer_title`).
Considerations: Affise publishes no list of columns. These are the names of its API (statistics 3.0), in an order that
is fixed here and that readers may rely on. An attribute of another name is not written. Folders and names follow the
time of the run and not of the event, in UTC. Times in cells have no zone, as Affise's have none, and are UTC too.
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Final

import msgspec

from exporter.pipeline.content import Content
from exporter.pipeline.events import NestsError, RowEvent, Value, exported, read_flat, read_message
from exporter.pipeline.origin import Origin
from exporter.pipeline.ports import FileName, Reading, WindowLimits
from exporter.pipeline.tables import Row, Table, table_of_text
from exporter.pipeline.transforms import Transforms

EPOCH = datetime(1970, 1, 1)
TIME = "%Y-%m-%d %H:%M:%S"
PLAIN_TIME = "%Y-%m-%d_%H-%M-%S"
"""A name for systems that refuse spaces and colons, as Windows does."""

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
        self._app_key = origin.app_key
        self._transforms = Transforms(content.remove, content.hash)
        self._selection = content.selection
        self._name_format = f"%Y/%m/%d/{PLAIN_TIME if content.plain_names else TIME}"
        self._table = table_of_text(data, columns)
        self._complete = _complete_click if data == "clicks" else _complete_conversion
        self._positions = {name: position for position, name in enumerate(columns)}
        self._empty = [""] * len(columns)

    def read(self, data: bytes, sequence: int = 0) -> Reading:
        """The rows of a message."""
        event_type = self._selection.event_type
        flat = read_flat(data, self._app_key, event_type)
        if flat is not None:
            with suppress(NestsError):
                return self._reading([event for event in flat if event.type == event_type], 0, "")
        decoded = read_message(data, self._app_key)
        found = [exported(event) for event in decoded.events if event.type == event_type]
        return self._reading(found, decoded.dropped, decoded.reason)

    def table(self, part: str) -> Table:
        """The columns, in an order that is fixed."""
        return self._table

    def name(self, name: FileName) -> str:
        """The name below the export's directory, for a file of this second."""
        return name.named_at.astimezone(UTC).strftime(self._name_format)

    def _reading(self, events: Sequence[RowEvent], dropped: int, reason: str) -> Reading:
        selection = self._selection
        has_lists = bool(selection.affiliates or selection.advertisers)
        chosen = [event for event in events if selection.matches(event)] if has_lists else events
        rows: list[Row] = [*map(self._row, chosen)]
        if self._transforms:
            rows = [[*map(self._transforms.apply, self._table.columns, row)] for row in rows]
        return Reading({selection.data: rows}, len(events), dropped, reason)

    def _row(self, event: RowEvent) -> Row:
        # A value that the event does not have is empty.
        row = self._empty.copy()
        positions = self._positions
        # An event has far fewer attributes than a file has columns.
        for name, value in event.attributes.items():
            kind = type(value)
            if kind is list or kind is dict:
                raise NestsError
            if (position := positions.get(name)) is not None:
                row[position] = value if kind is str else str(value) if kind is int else text(value)  # type: ignore[assignment]
        self._complete(event, row)
        return row


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


@lru_cache(maxsize=1024)
def _time_text(seconds: int) -> str:
    try:
        # `str` of a time without a zone and without a fraction has the format TIME, and is cheaper.
        return str(EPOCH + timedelta(seconds=seconds))
    except OverflowError:
        # `datetime` ends with the year 9999.
        return ""


def _attribute(event: RowEvent, name: str) -> str:
    return text(event.attributes.get(name))


def _earnings(event: RowEvent) -> str:
    """Revenue less payouts, exactly."""
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


_CLICK_ID, _CLICK_CLICK_ID, _CLICK_CREATED_AT, _CLICK_USER_ID, _CLICK_IOS_IDFA = map(
    CLICK_COLUMNS.index, ("id", "click_id", "created_at", "user_id", "ios_idfa")
)
_ID, _CONVERSION_ID, _ACTION_ID, _CLICKID, _CREATED_AT, _UPDATED_AT, _USER_ID, _EARNINGS = map(
    CONVERSION_COLUMNS.index,
    ("id", "conversion_id", "action_id", "clickid", "created_at", "updated_at", "user_id", "earnings"),
)


def _complete_click(event: RowEvent, row: list[str]) -> None:
    """Write the cells of a click that are no attribute of the column's name, or have another one in its place."""
    row[_CLICK_ID] = row[_CLICK_ID] or event.id
    row[_CLICK_CLICK_ID] = row[_CLICK_CLICK_ID] or row[_CLICK_ID]
    row[_CLICK_CREATED_AT] = _time_text(event.occurred_at // 1000)
    row[_CLICK_USER_ID] = event.user_id
    if "idfa" in event.attributes:
        row[_CLICK_IOS_IDFA] = row[_CLICK_IOS_IDFA] or _attribute(event, "idfa")


def _complete_conversion(event: RowEvent, row: list[str]) -> None:
    """Write the cells of a conversion that are no attribute of the column's name, or have another one in its place."""
    row[_ID] = row[_ID] or event.id
    row[_CLICKID] = row[_CLICKID] or _attribute(event, "click_id")
    # Affise: an action id that came with the advertiser's postback is the conversion's id, else the click's is.
    row[_CONVERSION_ID] = row[_CONVERSION_ID] or row[_ACTION_ID] or row[_CLICKID]
    row[_CREATED_AT] = _time_text(event.occurred_at // 1000)
    row[_UPDATED_AT] = row[_UPDATED_AT] or _attribute(event, "updatedAt")
    row[_USER_ID] = event.user_id
    row[_EARNINGS] = row[_EARNINGS] or _earnings(event)
