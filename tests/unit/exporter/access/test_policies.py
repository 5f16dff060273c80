"""The least policies of a bucket: word for word, and as an evaluator of policies reads them."""

from typing import Any

import msgspec
import pytest
from moto.iam.access_control import IAMPolicyStatement, PermissionResult

from exporter.access.policies import PolicyPart, export_policies

EVENTS = PolicyPart(export_id="events", kind="currents", folder="currents")
CLICKS = PolicyPart(export_id="clicks", kind="dashboard", folder="raw/clicks")
KEY = "arn:aws:kms:eu-west-1:123456789012:key/0aa0"

BUCKET_STATEMENT = {
    "Sid": "Bucket",
    "Effect": "Allow",
    "Action": ["s3:GetBucketLocation", "s3:GetBucketObjectLockConfiguration"],
    "Resource": "arn:aws:s3:::data",
}
EVENTS_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        BUCKET_STATEMENT,
        {
            "Sid": "List",
            "Effect": "Allow",
            "Action": "s3:ListBucket",
            "Resource": "arn:aws:s3:::data",
            "Condition": {"StringLike": {"s3:prefix": ["currents/*"]}},
        },
        {
            "Sid": "Objects",
            "Effect": "Allow",
            "Action": ["s3:PutObject", "s3:GetObject"],
            "Resource": ["arn:aws:s3:::data/currents/*"],
        },
    ],
}
CLICKS_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        BUCKET_STATEMENT,
        {
            "Sid": "List",
            "Effect": "Allow",
            "Action": "s3:ListBucket",
            "Resource": "arn:aws:s3:::data",
            "Condition": {"StringLike": {"s3:prefix": ["raw/clicks/*"]}},
        },
        {
            "Sid": "Objects",
            "Effect": "Allow",
            "Action": ["s3:PutObject", "s3:GetObject", "s3:DeleteObject"],
            "Resource": ["arn:aws:s3:::data/raw/clicks/*"],
        },
        {
            "Sid": "Key1",
            "Effect": "Allow",
            "Action": ["kms:GenerateDataKey", "kms:Decrypt"],
            "Resource": KEY,
            "Condition": {"StringEquals": {"kms:ViaService": "s3.eu-west-1.amazonaws.com"}},
        },
    ],
}


def policy_of(*parts: PolicyPart, region: str = "eu-west-1") -> dict[str, Any]:
    [made] = export_policies("data", region, parts)
    return made.policy


def statement(policy: dict[str, Any], sid: str) -> dict[str, Any]:
    [found] = [one for one in policy["Statement"] if one["Sid"] == sid]
    return dict(found)


def allows(policy: dict[str, Any], action: str, resource: str) -> bool:
    """Whether a policy allows an action, by moto's evaluator, which knows no conditions of S3 and KMS."""
    results = [
        IAMPolicyStatement(one | {"Condition": None}).is_action_permitted(action, resource)
        for one in policy["Statement"]
    ]
    return PermissionResult.PERMITTED in results


def test_export_of_events_may_not_delete() -> None:
    assert EVENTS_POLICY == policy_of(EVENTS)


def test_export_of_clicks_may_delete_and_use_its_key() -> None:
    assert CLICKS_POLICY == policy_of(msgspec.structs.replace(CLICKS, kms_key=KEY))


def test_bucket_of_both_kinds_has_two_policies_the_own_one_first() -> None:
    made = export_policies("data", "eu-west-1", [CLICKS, EVENTS])

    assert [("dashboard", ("clicks",)), ("currents", ("events",))] == [(one.kind, one.exports) for one in made]
    assert EVENTS_POLICY == made[1].policy


def test_exports_of_one_kind_share_a_policy_without_a_repetition() -> None:
    more = [PolicyPart(export_id=str(number), kind="dashboard", folder="b", kms_key=KEY) for number in range(2)]

    policy = policy_of(CLICKS, *more)

    assert ["arn:aws:s3:::data/b/*", "arn:aws:s3:::data/raw/clicks/*"] == statement(policy, "Objects")["Resource"]
    assert ["b/*", "raw/clicks/*"] == statement(policy, "List")["Condition"]["StringLike"]["s3:prefix"]
    assert ["Bucket", "List", "Objects", "Key1"] == [one["Sid"] for one in policy["Statement"]]


def test_whole_bucket_is_listed_without_a_condition() -> None:
    policy = policy_of(msgspec.structs.replace(CLICKS, folder=""))

    assert ["arn:aws:s3:::data/*"] == statement(policy, "Objects")["Resource"]
    assert "Condition" not in statement(policy, "List")


def test_wildcards_and_variables_in_a_folder_are_taken_as_they_are() -> None:
    policy = policy_of(msgspec.structs.replace(CLICKS, folder="a*/${aws:username}?"))

    escaped = "a${*}/${$}{aws:username}${?}/*"
    assert [f"arn:aws:s3:::data/{escaped}"] == statement(policy, "Objects")["Resource"]
    assert [escaped] == statement(policy, "List")["Condition"]["StringLike"]["s3:prefix"]


@pytest.mark.parametrize(
    ("key", "resource", "alias"),
    [
        ("0aa0", "arn:aws-cn:kms:cn-north-1:*:key/0aa0", None),
        ("key/0aa0", "arn:aws-cn:kms:cn-north-1:*:key/0aa0", None),
        ("arn:aws-cn:kms:cn-north-1:1:key/0aa0", "arn:aws-cn:kms:cn-north-1:1:key/0aa0", None),
        ("alias/exports", "arn:aws-cn:kms:cn-north-1:*:key/*", "alias/exports"),
        ("arn:aws-cn:kms:cn-north-1:1:alias/exports", "arn:aws-cn:kms:cn-north-1:1:key/*", "alias/exports"),
    ],
)
def test_key_is_named_however_the_export_names_it(key: str, resource: str, alias: str | None) -> None:
    found = statement(policy_of(msgspec.structs.replace(CLICKS, kms_key=key), region="cn-north-1"), "Key1")

    assert resource == found["Resource"]
    assert {"kms:ViaService": "s3.cn-north-1.amazonaws.com.cn"} == found["Condition"]["StringEquals"]
    aliases = found["Condition"].get("ForAnyValue:StringEquals", {}).get("kms:ResourceAliases")
    assert alias == aliases


@pytest.mark.parametrize(
    ("action", "resource", "events", "clicks"),
    [
        ("s3:PutObject", "arn:aws:s3:::data/currents/a.avro", True, False),
        ("s3:GetObject", "arn:aws:s3:::data/currents/a.avro", True, False),
        ("s3:DeleteObject", "arn:aws:s3:::data/currents/a.avro", False, False),
        ("s3:DeleteObject", "arn:aws:s3:::data/raw/clicks/a.csv.gz", False, True),
        ("s3:PutObject", "arn:aws:s3:::data/currents2/a.avro", False, False),
        ("s3:PutObject", "arn:aws:s3:::other/currents/a.avro", False, False),
        ("s3:PutObjectAcl", "arn:aws:s3:::data/currents/a.avro", False, False),
        ("s3:GetBucketLocation", "arn:aws:s3:::data", True, True),
        ("s3:ListBucket", "arn:aws:s3:::data", True, True),
        ("s3:DeleteBucket", "arn:aws:s3:::data", False, False),
    ],
)
def test_evaluator_allows_what_the_export_needs_and_nothing_else(
    action: str, resource: str, events: bool, clicks: bool
) -> None:
    assert (events, clicks) == (
        allows(EVENTS_POLICY, action, resource),
        allows(CLICKS_POLICY, action, resource),
    )
