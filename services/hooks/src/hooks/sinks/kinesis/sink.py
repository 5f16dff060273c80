"""
Send records to Amazon Kinesis Data Streams.

Configuration: kinesis:PutRecords on the streams, for the static keys of a user or for a role; with kinesis:PutRecord
alone, which is another permission, `put_record.py` helps out. Without keys, this service's own identity assumes the
role, and needs sts:AssumeRole. Implementation: one PutRecords per batch, encoded here and signed by
`shared.aws.clients`, since the SDK would cost three times all the rest of a record's way. The answer is positional:
HTTP 200 with a code for each record that failed. Considerations: 500 records and 10 MiB a call, but moto and older
regions hold to 5 MiB; 10 MiB a record with its key, but 1 MiB unless UpdateMaxRecordSize raised it, which the hook
tells. The stream's name is the hook's and not the connector's. A timeout may have stored the batch. One identity of
ours assumes the roles of every tenant, so the external id begins with the tenant's name
(`shared.aws.roles.check_role`).
"""

import asyncio
import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from hooks.delivery.model import Failed, Outcome, Record, Sent, SinkLimits
from shared.aws.clients import AwsClients
from shared.aws.errors import AWS_ERRORS, aws_code, aws_error
from shared.aws.roles import AwsCredentials, AwsRole, check_role
from shared.config.secret import Secret
from shared.errors import DeniedError, InvalidError, MillraceError, TooLargeError, UnavailableError

NAME: Final = "kinesis"

LIMITS: Final = SinkLimits(call_records=500, call_bytes=5 << 20, record_bytes=10 << 20)
"""Of PutRecords: the number in botocore's service model, the bytes as in *Considerations* above."""

CALL_S: Final = 15.0
"""For one call. The wait for a free connection has no limit of its own."""

ABOUT_RECORDS: Final = frozenset({"InvalidArgumentException", "ValidationException"})
"""Refusals that a record can be guilty of. Every other one concerns the call, and no record is put aside for it."""

ACCESS_KEY: Final = re.compile(r"\w{16,128}", re.ASCII)
"""IAM API reference, AccessKey. What else speaks the protocol, at an endpoint of its own, may have other keys."""

PUT_RECORDS: Final = "Kinesis_20131202.PutRecords"
PUT_RECORD: Final = "Kinesis_20131202.PutRecord"

NOT_ALLOWED: Final = frozenset({"AccessDeniedException", "AccessDenied"})
"""What a policy that lacks an action is answered with. Other denials, of KMS say, concern PutRecord as well."""


class KinesisConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    The Kinesis connector of one app. `api_key` is the access key id of an IAM user, `secret_key` its secret access key.
    Instead of them, or for them to assume, there is `role_arn` with its `external_id`, which is the app's key or begins
    with it and a colon.

    `endpoint_url` is another address of the API in the region, such as a VPC endpoint. While it is not `active`, no
    hook of the app sends anything.
    """

    region: Annotated[str, Meta(pattern=r"^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$(?!\n)")]
    api_key: Annotated[str, Meta(pattern=r"^[!-~]{0,128}$(?!\n)")] = ""
    secret_key: Secret = msgspec.field(default_factory=lambda: Secret(""))
    role_arn: str = ""
    external_id: str = ""
    endpoint_url: Annotated[str, Meta(pattern=r"^(https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?)?$(?!\n)")] = ""
    active: bool = True

    @property
    def credentials(self) -> AwsCredentials | AwsRole:
        """What signs: the keys, or the role that they, or this process's own identity, assume."""
        keys = AwsCredentials(access_key_id=self.api_key, secret_access_key=self.secret_key)
        if not self.role_arn:
            return keys
        return AwsRole(role_arn=self.role_arn, external_id=self.external_id, base=keys if self.api_key else None)

    def checked(self, *, allow_private: bool, app_key: str) -> "KinesisConfig":
        """
        The connector as it may be used: what the types do not say.

        Raises:
            InvalidError: A key or role cannot be right, or the endpoint is not AWS's although it has to be; names the
                field.
        """
        if self.role_arn or self.external_id:
            check_role(self.role_arn, self.external_id, app_key)
        if self.endpoint_url and not self.at_aws and not allow_private:
            raise InvalidError("expected https:// and a host of amazonaws.com", field="endpoint_url")
        if self.role_arn and not self.api_key:
            # A secret that is left out of a form is the saved one, here that of the keys which the role replaces.
            return msgspec.structs.replace(self, secret_key=Secret(""))
        if not self.api_key or (not self.endpoint_url and not ACCESS_KEY.fullmatch(self.api_key)):
            raise InvalidError("expected an access key id, or a role_arn", field="api_key")
        if not self.secret_key or self.secret_key.reveal().split() != [self.secret_key.reveal()]:
            raise InvalidError("expected a secret access key, without spaces", field="secret_key")
        return self

    @property
    def at_aws(self) -> bool:
        """Whether the API is AWS's own."""
        host = self.endpoint_url.removeprefix("https://").partition(":")[0]
        ours = self.endpoint_url.startswith("https://") and host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
        return ours or not self.endpoint_url

    def open(self, clients: AwsClients, stream_name: str, *, call_s: float = CALL_S) -> "KinesisSink":
        """The sink of one stream."""
        return KinesisSink(self, clients, stream_name, call_s)


class _Entry(Struct, frozen=True, gc=False):
    """PutRecordsRequestEntry; msgspec writes bytes as Base64, as the API wants them."""

    Data: bytes
    PartitionKey: str


class _PutRecords(Struct, frozen=True, gc=False):
    StreamName: str
    Records: list[_Entry]


class _PutRecord(Struct, frozen=True, gc=False):
    StreamName: str
    Data: bytes
    PartitionKey: str


class _Stored(Sent, frozen=True, gc=False):
    """PutRecord's answer, and PutRecordsResultEntry where the record is stored."""

    shard: str = msgspec.field(name="ShardId")
    sequence: Annotated[str, Meta(min_length=1)] = msgspec.field(name="SequenceNumber")


class _Told(Struct, frozen=True, gc=False):
    """PutRecordsResultEntry."""

    SequenceNumber: str | None = None
    ShardId: str | None = None
    ErrorCode: str | None = None
    ErrorMessage: str | None = None


class _AllStored(Struct, frozen=True, gc=False):
    FailedRecordCount: Literal[0]
    Records: list[_Stored]


class _Answer(Struct, frozen=True, gc=False):
    Records: list[_Told]


_encoder = msgspec.json.Encoder()
_all_stored = msgspec.json.Decoder(_AllStored)
_answer = msgspec.json.Decoder(_Answer)
_stored = msgspec.json.Decoder(_Stored)


class KinesisSink:
    """One stream. Satisfies `hooks.delivery.model.Sink`."""

    def __init__(self, config: KinesisConfig, clients: AwsClients, stream_name: str, call_s: float) -> None:
        self.limits = LIMITS
        self._config = config
        self._clients = clients
        self._stream_name = stream_name
        self._call_s = call_s

    async def send(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        """See `hooks.delivery.model.Sink`. Not by the SDK, which costs more than all the rest of a record's way."""
        return await self._put([_Entry(record.data, record.key) for record in batch])

    async def _put(self, entries: list["_Entry"]) -> Sequence[Outcome]:
        body = _encoder.encode(_PutRecords(self._stream_name, entries))
        config = self._config
        try:
            async with asyncio.timeout(self._call_s):
                answer = await self._clients.post_json(
                    "kinesis",
                    PUT_RECORDS,
                    body,
                    region=config.region,
                    credentials=config.credentials,
                    endpoint_url=config.endpoint_url or None,
                )
        except TimeoutError:
            raise UnavailableError(f"Kinesis did not answer within {self._call_s:g} s") from None
        except MillraceError as error:
            if (meant := _meant(error, aws_code(error))) is error:
                raise
            raise meant from error
        try:
            return _outcomes(answer)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise UnavailableError("Kinesis answered with something else than PutRecords' answer") from None

    async def ping(self) -> None:
        await self.describe()

    async def describe(self) -> dict[str, Any]:
        """DescribeStreamSummary, which a key that may only write is denied."""
        answer = await self._ask("describe_stream_summary", StreamName=self._stream_name)
        summary: dict[str, Any] = answer["StreamDescriptionSummary"]
        return summary

    async def put(self, key: str, data: bytes) -> Outcome:
        """One record by a PutRecords of its own. Raises as `send` does."""
        (outcome,) = await self._put([_Entry(data, key)])
        return outcome

    async def put_singly(self, key: str, data: bytes) -> Sent:
        """
        One record by PutRecord, which is another permission. The caller bounds the time.

        Raises:
            MillraceError: It is not stored: as `send` raises, for this record.
        """
        body = _encoder.encode(_PutRecord(self._stream_name, data, key))
        config = self._config
        try:
            answer = await self._clients.post_json(
                "kinesis",
                PUT_RECORD,
                body,
                region=config.region,
                credentials=config.credentials,
                endpoint_url=config.endpoint_url or None,
            )
        except MillraceError as error:
            if (meant := _meant(error, aws_code(error))) is error:
                raise
            raise meant from error
        try:
            return _stored.decode(answer)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise UnavailableError("Kinesis answered with something else than PutRecord's answer") from None

    async def _ask(self, operation: str, **given: Any) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._call_s):
                return await call(self._config, self._clients, "kinesis", operation, **given)
        except TimeoutError:
            raise UnavailableError(f"Kinesis did not answer within {self._call_s:g} s") from None


async def call(
    config: KinesisConfig, clients: AwsClients, service: str, operation: str, **given: Any
) -> dict[str, Any]:
    """
    What the SDK answers, for what is asked rarely.

    Raises:
        MillraceError: AWS refused, or was not reached.
    """
    # A VPC endpoint of Kinesis does not speak STS; whoever stands in for AWS speaks both.
    elsewhere = config.endpoint_url and not (service == "sts" and config.at_aws)
    try:
        async with clients.client(
            service,
            region=config.region,
            credentials=config.credentials,
            endpoint_url=config.endpoint_url if elsewhere else None,
        ) as client:
            answer: dict[str, Any] = await getattr(client, operation)(**given)
            return answer
    except AWS_ERRORS as error:
        raise _meant(aws_error(error), aws_code(error)) from error


def _meant(found: MillraceError, code: str | None) -> MillraceError:
    """What a refusal means for delivery."""
    if isinstance(found, InvalidError | TooLargeError) and code not in ABOUT_RECORDS:
        return DeniedError(found.message)
    return found


def _outcomes(answer: bytes) -> Sequence[Outcome]:
    try:
        # Nearly every answer. To look at each of its records here would cost as much as to read them.
        return _all_stored.decode(answer).Records
    except msgspec.ValidationError:
        return [_outcome(told) for told in _answer.decode(answer).Records]


def _outcome(told: "_Told") -> Outcome:
    if told.ErrorCode:
        return Failed(told.ErrorCode, told.ErrorMessage or "")
    if not told.SequenceNumber:
        return Failed("NoSequenceNumber", "Kinesis told neither a sequence number nor an error")
    return Sent(told.ShardId or "", told.SequenceNumber)
