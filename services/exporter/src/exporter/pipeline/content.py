"""The content of an export's files: everything that their bytes and names depend on, beside the events. Pure."""

from msgspec import Struct

from exporter.pipeline.selection import EventSelection


class Content(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    The choice of events, and the form in which files hold them.

    A plan keeps it, so that a planned file is built again as it was, whatever the configuration says by then.
    `remove` and `hash` name fields whose values are not exported as they are. `plain_names` keeps spaces and colons out
    of the names of files that have them. With `manifest`, a window has a list of its files beside them.
    """

    selection: EventSelection
    layout: str = "affise"
    format: str = "csv.gz"
    remove: tuple[str, ...] = ()
    hash: tuple[str, ...] = ()
    plain_names: bool = False
    manifest: bool = False
