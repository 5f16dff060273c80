"""Hosts that are AWS's own, and the domain of a region."""

import pytest

from shared.aws.endpoints import domain_of, is_aws, partition_of


@pytest.mark.parametrize(
    "url",
    [
        "https://kinesis.eu-west-1.amazonaws.com",
        "https://kinesis.eu-west-1.amazonaws.com:443",
        "https://kinesis.eu-west-1.api.aws",
        "https://kinesis-fips.us-east-1.amazonaws.com",
        "https://kinesis-fips.us-east-1.api.aws",
        "https://kinesis.us-gov-west-1.amazonaws.com",
        "https://kinesis.cn-north-1.amazonaws.com.cn",
        "https://kinesis.cn-north-1.api.amazonwebservices.com.cn",
        "https://kinesis.eusc-de-east-1.amazonaws.eu",
        "https://kinesis.eusc-de-east-1.api.amazonwebservices.eu",
        "https://kinesis.us-iso-east-1.c2s.ic.gov",
        "https://kinesis.us-isob-east-1.sc2s.sgov.gov",
        "https://kinesis.us-isof-south-1.csp.hci.ic.gov",
        "https://kinesis.eu-isoe-west-1.cloud.adc-e.uk",
        "https://123456789012.data-kinesis.us-east-1.amazonaws.com",
        "https://vpce-0a1b-2c3d.kinesis.eu-west-1.vpce.amazonaws.com",
        "https://vpce-0a1b-2c3d-eu-west-1a.kinesis.eu-west-1.vpce.amazonaws.com",
    ],
)
def test_every_address_of_a_service_is_aws(url: str) -> None:
    assert is_aws(url, "kinesis")
    assert not is_aws(url.replace("https:", "http:"), "kinesis")
    assert not is_aws(url, "sts")


@pytest.mark.parametrize(
    "url",
    [
        "https://s3.amazonaws.com",
        "https://s3.eu-west-1.amazonaws.com",
        "https://s3-eu-west-1.amazonaws.com",
        "https://bucket.s3.eu-west-1.amazonaws.com",
        "https://s3.dualstack.eu-west-1.amazonaws.com",
        "https://s3-fips.dualstack.us-east-1.amazonaws.com",
        "https://s3.cn-north-1.amazonaws.com.cn",
        "https://bucket.vpce-0a1b-2c3d.s3.eu-west-1.vpce.amazonaws.com",
    ],
)
def test_s3_has_further_addresses(url: str) -> None:
    assert is_aws(url, "s3")


@pytest.mark.parametrize(
    "url",
    [
        "https://amazonaws.com",
        "https://kinesis.eu-west-1.amazonaws.com.example.org",
        "https://kinesis.eu-west-1.amazonaws.com@example.org",
        "https://example.org#kinesis.eu-west-1.amazonaws.com",
        "https://kinesis.eu-west-1.notamazonaws.com",
        "https://kinesis.eu-west-1.amazonaws.com.",
        "https://[::1",
        # Machines of customers.
        "https://ec2-203-0-113-9.eu-west-1.compute.amazonaws.com",
        "https://kinesis-1234567890.eu-west-1.elb.amazonaws.com",
        "https://kinesis.c9akciq32.eu-west-1.rds.amazonaws.com",
        "https://x1y2z3.execute-api.eu-west-1.amazonaws.com",
        "https://vpce-0a1b.vpce-svc-0c1d.eu-west-1.vpce.amazonaws.com",
    ],
)
def test_another_host_is_not_aws(url: str) -> None:
    assert not is_aws(url, "kinesis")


@pytest.mark.parametrize(
    ("region", "domain"),
    [
        ("eu-west-1", "amazonaws.com"),
        ("us-gov-west-1", "amazonaws.com"),
        ("cn-north-1", "amazonaws.com.cn"),
        ("eusc-de-east-1", "amazonaws.eu"),
        ("us-iso-east-1", "c2s.ic.gov"),
        ("us-isob-west-1", "sc2s.sgov.gov"),
        # Regions that botocore does not list: one of a known form, and one of a new form.
        ("cn-south-9", "amazonaws.com.cn"),
        ("xx-new-1", "amazonaws.com"),
    ],
)
def test_a_region_has_the_domain_of_its_partition(region: str, domain: str) -> None:
    assert domain == domain_of(region)


@pytest.mark.parametrize(
    ("region", "partition"), [("eu-west-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")]
)
def test_a_region_is_in_a_partition(region: str, partition: str) -> None:
    assert partition == partition_of(region)
