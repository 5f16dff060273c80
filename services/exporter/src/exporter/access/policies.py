"""
The least policies of IAM with which exports write into a bucket: one for each kind of export that the bucket has.

`dashboard` are exports of clicks and conversions, whose Test Connection deletes its object; `currents` are those of
events, which need no right to delete.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

from msgspec import Struct

from exporter.access.trust import POLICY_VERSION
from shared.aws.endpoints import domain_of, partition_of

PolicyKind = Literal["currents", "dashboard"]
OBJECT_ACTIONS: Final[dict[PolicyKind, tuple[str, ...]]] = {
    "currents": ("s3:PutObject", "s3:GetObject"),
    "dashboard": ("s3:PutObject", "s3:GetObject", "s3:DeleteObject"),
}
KEY_ACTIONS: Final = ("kms:GenerateDataKey", "kms:Decrypt")
"""Actions on the key of objects that are written and read back (S3 user guide, SSE-KMS)."""


class PolicyPart(Struct, frozen=True, kw_only=True):
    """
    The right that one export needs: its kind, the folder in the bucket without a slash at its ends, and the key of
    KMS that encrypts its objects, as an ARN, an alias or an id; empty without one.
    """

    export_id: str
    kind: PolicyKind
    folder: str
    kms_key: str = ""


class ExportPolicy(Struct, frozen=True, kw_only=True):
    """The policy of one kind of export in a bucket: the exports that it is for, and its JSON."""

    kind: PolicyKind
    exports: tuple[str, ...]
    policy: dict[str, Any]


class ExportPolicies(Struct, frozen=True, kw_only=True):
    """
    Policies for the user or the role that writes the files of an export, that of its own kind first. Where other
    exports of the app write into the bucket as the same user or role, they are in it too.

    `external_id`, `aws_account` and `trust_policy` are for a role, as `RoleTrust` has them.
    """

    policies: tuple[ExportPolicy, ...]
    external_id: str
    aws_account: str | None
    trust_policy: dict[str, Any] | None


def export_policies(bucket: str, region: str, parts: Sequence[PolicyPart]) -> tuple[ExportPolicy, ...]:
    """A policy for each kind among the parts, in the order in which the kinds come."""
    kinds = dict.fromkeys(part.kind for part in parts)
    return tuple(_policy_of(kind, bucket, region, [part for part in parts if part.kind == kind]) for kind in kinds)


def _policy_of(kind: PolicyKind, bucket: str, region: str, parts: Sequence[PolicyPart]) -> ExportPolicy:
    arn = f"arn:{partition_of(region)}:s3:::{bucket}"
    folders = sorted({part.folder for part in parts})
    keys = sorted({part.kms_key for part in parts if part.kms_key})
    statements = [
        {
            "Sid": "Bucket",
            "Effect": "Allow",
            "Action": ["s3:GetBucketLocation", "s3:GetBucketObjectLockConfiguration"],
            "Resource": arn,
        },
        {"Sid": "List", "Effect": "Allow", "Action": "s3:ListBucket", "Resource": arn} | _listing(folders),
        {
            "Sid": "Objects",
            "Effect": "Allow",
            "Action": list(OBJECT_ACTIONS[kind]),
            "Resource": [f"{arn}/{_literal(folder)}/*" if folder else f"{arn}/*" for folder in folders],
        },
        *(_key_statement(number, key, region) for number, key in enumerate(keys, start=1)),
    ]
    exports = tuple(part.export_id for part in parts)
    return ExportPolicy(kind=kind, exports=exports, policy={"Version": POLICY_VERSION, "Statement": statements})


def _listing(folders: Sequence[str]) -> dict[str, Any]:
    """The condition of a list of these folders alone; none for the whole bucket."""
    if "" in folders:
        return {}
    return {"Condition": {"StringLike": {"s3:prefix": [f"{_literal(folder)}/*" for folder in folders]}}}


def _key_statement(number: int, key: str, region: str) -> dict[str, Any]:
    """The right to use a key by S3 alone. A key that an alias names is known by the alias."""
    partition = partition_of(region)
    condition: dict[str, Any] = {"StringEquals": {"kms:ViaService": f"s3.{region}.{domain_of(region)}"}}
    _, _, name = key.rpartition(":")
    if name.startswith("alias/"):
        condition["ForAnyValue:StringEquals"] = {"kms:ResourceAliases": name}
        resource = f"{key.removesuffix(name)}key/*" if key != name else f"arn:{partition}:kms:{region}:*:key/*"
    else:
        resource = key if key != name else f"arn:{partition}:kms:{region}:*:key/{name.removeprefix('key/')}"
    return {
        "Sid": f"Key{number}",
        "Effect": "Allow",
        "Action": list(KEY_ACTIONS),
        "Resource": resource,
        "Condition": condition,
    }


def _literal(text: str) -> str:
    """A text in which a policy finds no wildcard and no variable (IAM user guide, Policy variables)."""
    return "".join(f"${{{letter}}}" if letter in "*?$" else letter for letter in text)
