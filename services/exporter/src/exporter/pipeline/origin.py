"""The origin of an export's files, as their names tell it."""

from msgspec import Struct


class Origin(Struct, frozen=True, kw_only=True):
    """
    The export that writes, and the mesh in which it runs.

    `destination` is the kind of the destination: `S3`, `AzureBlob`, `Local` or `Gateway`.
    """

    app_key: str
    export_id: str
    cluster: str = "millrace"
    zone: str = "main"
    destination: str = "S3"
