"""
Objects in Amazon S3, or in a store that speaks its protocol.

Configuration: s3:PutObject and s3:GetObject on `<bucket>/<prefix>/*`. Everybody must be able to read the prefix, by a
bucket policy or a CDN before it: no ACL is sent, because buckets refuse them by default.
Implementation: `shared.objectstore`, which costs a sixth of the SDK's CPU time (reference: storage.md, 4.2).
Considerations: a bucket with a dot in its name has no valid certificate under its own host name, so its URLs have it in
the path.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from shared.errors import InvalidError
from shared.objectstore import ObjectStore, S3StoreConfig
from shared.private_addresses import refuse_private_addresses, refuse_private_host
from shared.secret_store import Secret
from storage.uploads import Headers

NAME: Final = "amazon-storage"

ACCESS_KEY = re.compile(r"[A-Za-z0-9_]{16,128}")
"""IAM API reference, AccessKey."""
OTHER_ACCESS_KEY = re.compile(r"[!-~]{1,128}")
"""What stores other than AWS give out."""
SECRET_KEY = re.compile(r"[!-~]{1,256}")
BUCKET_NAME = re.compile(r"(?!.*\.\.)(?!\d+\.\d+\.\d+\.\d+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
"""S3 user guide, bucket naming rules."""
REGION = re.compile(r"[a-z]{2,4}(?:-[a-z]+)+-\d{1,2}")
OTHER_REGION = re.compile(r"[a-z0-9-]{1,32}")
PREFIX = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]*/)*[A-Za-z0-9_-][A-Za-z0-9._-]*")
CDN_PATH = re.compile(r"[A-Za-z0-9._~/-]*")
PREFIX_CHARS: Final = 256


class AmazonStorageConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The Amazon Storage connector of one app.

    `access_key` and `secret_key` are static keys of an IAM user. `cdn_base_url` is what URLs begin with where a CDN
    stands before the bucket, `prefix` what every key begins with, `endpoint_url` a store other than AWS. What is not
    `active` is kept and not used.
    """

    access_key: str
    secret_key: Secret
    bucket_name: str
    region: str
    cdn_base_url: str = ""
    prefix: str = ""
    endpoint_url: str = ""
    active: bool = True

    @asynccontextmanager
    async def open(self, *, allow_private: bool) -> AsyncIterator["AmazonProvider"]:
        """Asks nothing of the bucket yet. Raises `InvalidError` when a field cannot be right."""
        if self.endpoint_url and not allow_private:
            await refuse_private_addresses(self.endpoint_url, "endpoint_url")
        config = S3StoreConfig(
            bucket=self.bucket_name,
            region=self.region,
            access_key_id=self.access_key,
            secret_access_key=self.secret_key,
            endpoint_url=self.endpoint_url or None,
        )
        async with config.open() as store:
            yield AmazonProvider(self, store)

    def url(self, key: str) -> str:
        """The permanent address of a key: no credential is in it, so it outlives them all."""
        if self.cdn_base_url:
            return f"{self.cdn_base_url}/{key}"
        if self.endpoint_url:
            return f"{self.endpoint_url}/{self.bucket_name}/{key}"
        domain = "amazonaws.com.cn" if self.region.startswith("cn-") else "amazonaws.com"
        if "." in self.bucket_name:
            return f"https://s3.{self.region}.{domain}/{self.bucket_name}/{key}"
        return f"https://{self.bucket_name}.s3.{self.region}.{domain}/{key}"


class AmazonProvider:
    """Satisfies `uploads.Provider`."""

    name = NAME

    def __init__(self, config: AmazonStorageConfig, store: ObjectStore) -> None:
        self.prefix = config.prefix
        self.url = config.url
        self._store = store

    async def put_if_absent(self, key: str, content: bytes, headers: Headers) -> bool:
        """See `uploads.Provider`."""
        return await self._store.put_if_absent(
            key,
            content,
            content_type=headers.content_type,
            cache_control=headers.cache_control,
            content_disposition=headers.content_disposition,
        )


def checked(config: AmazonStorageConfig, *, allow_private: bool) -> AmazonStorageConfig:
    """
    The connector without the spaces and slashes that are copied along. Asks nobody.

    Raises:
        InvalidError: A field cannot be right; says which and what was expected.
    """
    config = msgspec.structs.replace(
        config,
        access_key=config.access_key.strip(),
        secret_key=Secret(config.secret_key.reveal().strip()),
        bucket_name=config.bucket_name.strip(),
        region=config.region.strip(),
        cdn_base_url=config.cdn_base_url.strip().rstrip("/"),
        prefix=config.prefix.strip().strip("/"),
        endpoint_url=config.endpoint_url.strip().rstrip("/"),
    )
    aws = not config.endpoint_url
    _expect(ACCESS_KEY if aws else OTHER_ACCESS_KEY, config.access_key, "access_key", "an access key id")
    # The secret itself stays out of the message.
    _expect(SECRET_KEY, config.secret_key.reveal(), "secret_key", "a secret access key, without spaces")
    _expect(BUCKET_NAME, config.bucket_name, "bucket_name", "3 to 63 of a-z, 0-9, '-' and '.'")
    _expect(REGION if aws else OTHER_REGION, config.region, "region", "an AWS region such as eu-west-1")
    if config.prefix and (len(config.prefix) > PREFIX_CHARS or not PREFIX.fullmatch(config.prefix)):
        raise InvalidError(
            f"expected up to {PREFIX_CHARS} of letters, digits, '.', '_', '-' and '/', no part beginning with '.'",
            field="prefix",
        )
    if config.endpoint_url:
        _check_url(config.endpoint_url, "endpoint_url", allow_private=allow_private, path=False)
    if config.cdn_base_url:
        _check_url(config.cdn_base_url, "cdn_base_url", allow_private=allow_private, path=True)
    return config


def _expect(pattern: re.Pattern[str], value: str, field: str, expected: str) -> None:
    if not pattern.fullmatch(value):
        raise InvalidError(f"expected {expected}", field=field)


def _check_url(url: str, field: str, *, allow_private: bool, path: bool) -> None:
    expected = "https://host" + ("[:port][/path]" if path else "[:port]")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise InvalidError(f"expected {expected}", field=field) from None
    plain = f"{parts.scheme}://{parts.netloc}{parts.path}" == url and "@" not in parts.netloc
    if not host or not plain or (parts.path and not path) or not CDN_PATH.fullmatch(parts.path):
        raise InvalidError(f"expected {expected}", field=field)
    if not allow_private and parts.scheme != "https":
        raise InvalidError(f"expected {expected}", field=field)
    if parts.scheme not in {"https", "http"}:
        raise InvalidError(f"expected {expected}", field=field)
    if not allow_private:
        refuse_private_host(url, field)
