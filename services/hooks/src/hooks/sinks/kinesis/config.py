"""
Send records to Amazon Kinesis Data Streams.

Configuration: kinesis:PutRecords on the streams, for the static keys of a user or for a role; with kinesis:PutRecord
alone, which is another permission, `put_record.py` helps out. Without keys, this service's own identity assumes the
role, and needs sts:AssumeRole.
Implementation: `sink.py` sends by PutRecords, `put_record.py` by PutRecord; `checks.py` is Test Connection. Retries
nothing: `hooks.delivery.target_queue` does.
Considerations: the stream's name is the hook's and not the connector's. One identity of ours assumes the roles of every
tenant, so the external id begins with the tenant's name (`shared.aws.roles.check_role`).
"""

import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, ClassVar, Final

import msgspec
from msgspec import Meta, Struct

from hooks.delivery.model import SinkLimits
from hooks.matching.hook import Hook
from hooks.sinks.kinesis.api import KinesisApi
from hooks.sinks.kinesis.checks import kinesis_checks
from hooks.sinks.kinesis.put_record import PutRecordFallback
from hooks.sinks.kinesis.sink import CALL_S, LIMITS, KinesisSink
from hooks.sinks.port import Advise
from shared.aws.clients import AwsClients
from shared.aws.endpoints import domain_of, is_aws
from shared.aws.roles import AwsCredentials, AwsRole, check_role, checked_token
from shared.config.secret import Secret
from shared.contracts.connection_report import ConnectionReport, run_checks
from shared.errors import InvalidError
from shared.outgoing.door import Outgoing
from shared.outgoing.urls import check_url
from shared.runtime.settings import Settings

ACCESS_KEY: Final = re.compile(r"\w{16,128}", re.ASCII)
"""IAM API reference, AccessKey. Another service of the protocol, at an endpoint of its own, may have other keys."""


class KinesisConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The Kinesis connector of one app. `api_key` is the access key id of an IAM user, `secret_key` its secret access key;
    temporary keys have a `session_token` too. `role_arn` is used instead of them, or assumed with them. Its
    `external_id` is the app's key, or begins with it and a colon.

    `endpoint_url` is another address of the API in the region, such as a VPC endpoint. While it is not `active`, no
    hook of the app sends anything.
    """

    hook_type: ClassVar[str] = "KINESIS"
    title: ClassVar[str] = "Kinesis"
    connector: ClassVar[str | None] = "kinesis"
    hook_fields: ClassVar[tuple[str, ...]] = ("stream_name",)
    limits: ClassVar[SinkLimits] = LIMITS

    region: Annotated[str, Meta(pattern=r"^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$(?!\n)")]
    api_key: Annotated[str, Meta(pattern=r"^[!-~]{0,128}$(?!\n)")] = ""
    secret_key: Secret = msgspec.field(default_factory=lambda: Secret(""))
    session_token: Secret = msgspec.field(default_factory=lambda: Secret(""))
    role_arn: str = ""
    external_id: str = ""
    endpoint_url: Annotated[str, Meta(pattern=r"^(https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?)?$(?!\n)")] = ""
    active: bool = True

    @property
    def credentials(self) -> AwsCredentials | AwsRole:
        """The keys that sign, or the role that they or this process's own identity assume."""
        keys = AwsCredentials(
            access_key_id=self.api_key, secret_access_key=self.secret_key, session_token=self.session_token
        )
        if not self.role_arn:
            return keys
        return AwsRole(role_arn=self.role_arn, external_id=self.external_id, base=keys if self.api_key else None)

    @classmethod
    def open_shared(cls, settings: Settings, outgoing: Outgoing, clock: Callable[[], datetime]) -> AwsClients:
        """The AWS clients of the process."""
        return AwsClients(outgoing, ("kinesis", "sts"), sts_endpoint_url=settings.sts_endpoint_url or None)

    @classmethod
    def of_hook(cls, hook: Hook) -> None:
        """None: the configuration is the app's connector."""

    def check(self, *, allow_private: bool, app_key: str) -> "KinesisConfig":
        """
        See `hooks.sinks.port.SinkFactory`.

        Raises:
            InvalidError: A key or role cannot be right, or the endpoint is not AWS's although it has to be; names the
                field.
        """
        if self.role_arn or self.external_id:
            check_role(self.role_arn, self.external_id, app_key)
        if self.endpoint_url and not self.at_aws and not allow_private:
            raise InvalidError(
                f"expected https:// and a host of Kinesis, such as kinesis.{self.region}.{domain_of(self.region)}",
                field="endpoint_url",
            )
        if self.endpoint_url:
            check_url(self.endpoint_url, "endpoint_url", allow_private=True)
        if self.role_arn and not self.api_key:
            # A secret that is left out of a form is the saved one, here that of the keys which the role replaces.
            return msgspec.structs.replace(self, secret_key=Secret(""), session_token=Secret(""))
        if not self.api_key or (not self.endpoint_url and not ACCESS_KEY.fullmatch(self.api_key)):
            raise InvalidError("expected an access key id, or a role_arn", field="api_key")
        if not self.secret_key or self.secret_key.reveal().split() != [self.secret_key.reveal()]:
            raise InvalidError("expected a secret access key, without spaces", field="secret_key")
        return msgspec.structs.replace(self, session_token=checked_token(self.api_key, self.session_token))

    @property
    def at_aws(self) -> bool:
        """Return whether the API is AWS's own."""
        return not self.endpoint_url or is_aws(self.endpoint_url, "kinesis")

    def open(
        self,
        shared: AwsClients,
        name: str,
        advise: Advise,
        *,
        call_s: float = CALL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> PutRecordFallback:
        """
        The sink of one stream; see `hooks.sinks.port.SinkFactory`.

        Args:
            call_s: The time limit of one call.
            clock: Monotonic, in seconds.
        """
        return PutRecordFallback(KinesisSink(self.api(shared), name, call_s), advise, call_s, clock)

    async def test(self, shared: AwsClients, stream_name: str | None, *, test_record: bool) -> ConnectionReport:
        """See `hooks.sinks.port.SinkFactory`."""
        return await run_checks(kinesis_checks(self.api(shared), stream_name, test_record=test_record))

    def api(self, clients: AwsClients) -> KinesisApi:
        """The API that the connector leads to."""
        return KinesisApi(clients, self.region, self.credentials, self.endpoint_url or None, self.at_aws)
