"""The trust policy of a role, as a customer of AWS gets it."""

from exporter.access.trust import trust_policy

GOLDEN = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"AWS": "arn:aws-cn:iam::999988887777:root"},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"sts:ExternalId": "shop:0123"}},
        }
    ],
}


def test_trust_policy_lets_our_account_assume_the_role_with_the_external_id_alone() -> None:
    assert GOLDEN == trust_policy("aws-cn", "999988887777", "shop:0123")
