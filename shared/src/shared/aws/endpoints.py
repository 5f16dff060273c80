"""
Endpoints of AWS, by botocore's data: each partition of AWS has domains of its own (`data/partitions.json`).

The forms of a host: AWS general reference, service endpoints; AWS PrivateLink guide; S3 user guide, dual-stack
endpoints. The data is read when this module is imported, since a read of a file would hold the event loop.
"""

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

REGION: Final = re.compile(r"[a-z]{2,5}(?:-[a-z]+)+-\d{1,2}")
COMMERCIAL: Final = "aws"
"""The partition of a region that no partition claims, as botocore has it."""


class _Outputs(Struct, frozen=True, rename="camel"):
    dns_suffix: str
    dual_stack_dns_suffix: str


class _Partition(Struct, frozen=True, rename="camel"):
    id: str
    outputs: _Outputs
    region_regex: str
    regions: Mapping[str, object]


class _Partitions(Struct, frozen=True):
    partitions: tuple[_Partition, ...]


_PARTITIONS: Final = msgspec.json.decode(
    files("botocore").joinpath("data/partitions.json").read_bytes(), type=_Partitions
).partitions
_DOMAINS: Final = sorted(
    {domain for partition in _PARTITIONS for domain in msgspec.structs.astuple(partition.outputs)},
    # The longest first: one domain may end with another.
    key=len,
    reverse=True,
)


def domain_of(region: str) -> str:
    """The domain of AWS's endpoints in a region, such as `amazonaws.com`."""
    return _partition_of(region).outputs.dns_suffix


def partition_of(region: str) -> str:
    """The partition of AWS that a region is in, as it stands in ARNs, such as `aws-cn`."""
    return _partition_of(region).id


def _partition_of(region: str) -> _Partition:
    partitions = {partition.id: partition for partition in _PARTITIONS}
    of_region = (one for one in partitions.values() if region in one.regions or re.match(one.region_regex, region))
    return next(of_region, partitions[COMMERCIAL])


def is_aws(endpoint_url: str, service: str) -> bool:
    """
    Return whether only AWS answers at an endpoint of a service: HTTPS, and a host that AWS gives to the service. It
    may be private, as an interface endpoint of a VPC is. A customer's own machine below a domain of AWS is not AWS.
    """
    try:
        parts = urlsplit(endpoint_url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme != "https":
        return False
    domain = next((domain for domain in _DOMAINS if host.endswith(f".{domain}")), None)
    return domain is not None and _is_of(service, host.removesuffix(f".{domain}").split("."))


def _is_of(service: str, labels: list[str]) -> bool:
    """
    Return whether the labels before the domain name a service: `kinesis.<region>`, `kinesis-fips.<region>`,
    `<account>.data-kinesis.<region>`, `s3.dualstack.<region>`, `<id>.kinesis.<region>.vpce`, `s3`.
    """
    name = re.compile(rf"(?:[a-z]+-)?{re.escape(service)}(?:-[a-z0-9-]+)?")
    for place, label in enumerate(labels):
        if name.fullmatch(label):
            rest = [part for part in labels[place + 1 :] if part != "dualstack"]
            return not rest or (REGION.fullmatch(rest[0]) is not None and rest[1:] in ([], ["vpce"]))
    return False
