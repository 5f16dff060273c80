"""
Checks of an account of Azure Storage as customers enter it: names, keys, signatures, the parts of a connection string.
No I/O.
"""

import base64
import binascii
import re
from typing import Final
from urllib.parse import parse_qs

from shared.config.secret import Secret
from shared.errors import InvalidError

ACCOUNT_NAME: Final = re.compile(r"[a-z0-9]{3,24}")
"""Azure, naming rules for resources, Microsoft.Storage."""
EXPECTED_ACCOUNT: Final = "3 to 24 of a-z and 0-9"
CONTAINER_NAME: Final = re.compile(r"(?=.{3,63}$)[a-z0-9]+(?:-[a-z0-9]+)*")
"""Azure, naming containers, blobs and metadata: every hyphen stands between letters or digits."""
EXPECTED_CONTAINER: Final = "3 to 63 of a-z, 0-9 and '-', no '-' at an end or beside another"

SUFFIX: Final = "core.windows.net"
AZURE_SUFFIXES: Final = frozenset({SUFFIX, "core.chinacloudapi.cn", "core.usgovcloudapi.net"})
"""Suffixes of Azure's clouds. Only Microsoft assigns names below these."""

CONNECTION_STRING: Final = re.compile(
    r"(?i)(?:DefaultEndpointsProtocol|AccountName|AccountKey|EndpointSuffix|BlobEndpoint|SharedAccessSignature)\s*="
)
SIGNATURE: Final = re.compile(r"(?:^|[?&])sig=")
VISIBLE: Final = re.compile(r"[!-~]+")


def is_connection_string(text: str) -> bool:
    """Return whether a field holds an account's connection string, which has parts for several fields."""
    return CONNECTION_STRING.search(text) is not None


def check_account_key(account_key: Secret, field: str) -> None:
    """Check a key of an account. Raises `InvalidError`, whose message does not hold it."""
    key = account_key.reveal()
    if SIGNATURE.search(key):
        raise InvalidError("expected an account key; this is a shared access signature", field=field)
    try:
        raw = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if not raw:
        raise InvalidError("expected an account key in Base64, as Azure shows it", field=field)


def check_sas_token(sas_token: Secret, field: str) -> None:
    """Check a shared access signature: the query of a URL, alone. Raises `InvalidError`, whose message lacks it."""
    token = sas_token.reveal()
    if not VISIBLE.fullmatch(token) or "/" in token.partition("=")[0] or not signatures_of(sas_token):
        raise InvalidError(
            "expected a shared access signature as Azure shows it: what stands after the ? of its URL, with sig=",
            field=field,
        )


def signatures_of(sas_token: Secret) -> list[str]:
    """The signatures in a shared access signature, decoded: the part of it that is secret."""
    return [found for found in parse_qs(sas_token.reveal().removeprefix("?")).get("sig", []) if found]
