"""
Test Connection of Kinesis: the owner of the key, the state of the stream and, where asked for, a record in it.

Configuration: works for a key that may only write. Every key may call sts:GetCallerIdentity;
kinesis:DescribeStreamSummary is tried and may be denied.
"""

from typing import Final

from hooks.delivery.model import Failed, Outcome
from hooks.sinks.kinesis.api import NOT_ALLOWED, KinesisApi
from hooks.sinks.kinesis.sink import KinesisSink
from hooks.sinks.probe_message import probe_message
from shared.aws.codes import hint_for
from shared.aws.errors import aws_code, aws_details
from shared.contracts.connection_report import Check, Finding
from shared.errors import DeniedError, MillraceError

UNUSABLE: Final = ("DELETING", "CREATING")


def kinesis_checks(api: KinesisApi, stream_name: str | None, *, test_record: bool) -> tuple[Check, ...]:
    """The steps. `test_record` needs a stream."""
    sink = KinesisSink(api, stream_name) if stream_name is not None else None

    async def identify() -> Finding:
        answer = await api.call("sts", "get_caller_identity")
        return Finding(message=f"the key belongs to {answer['Arn']}", http_status=200)

    async def describe() -> Finding:
        if sink is None:
            return Finding(status="skipped", message="no stream_name was given")
        summary = await sink.describe()
        status = summary["StreamStatus"]
        mode = summary.get("StreamModeDetails", {}).get("StreamMode", "PROVISIONED")
        return Finding(
            status="warning" if status in UNUSABLE else "ok",
            message=f"{stream_name} is {status}, {mode}, with {summary['OpenShardCount']} open shards",
            http_status=200,
        )

    async def put() -> Finding:
        if not test_record:
            return Finding(status="skipped", message="no test_record was asked for")
        assert sink is not None
        return await _put_test_record(sink)

    return (
        Check(name="identity", run=identify, explain=_explain_identity),
        Check(name="stream", run=describe, explain=_explain_stream, needs=("identity",)),
        Check(name="record", run=put, explain=_explain, needs=("identity", "stream")),
    )


async def _put_test_record(sink: KinesisSink) -> Finding:
    name, data = probe_message()
    denied: DeniedError | None = None
    outcome: Outcome
    try:
        outcome = await sink.put(name, data)
    except DeniedError as error:
        if aws_code(error) not in NOT_ALLOWED:
            raise
        denied = error
        try:
            outcome = await sink.put_singly(name, data)
        except DeniedError:
            raise error from error.__cause__
    if isinstance(outcome, Failed):
        return Finding(status="failed", code=outcome.code, message=outcome.message, hint=hint_for(outcome.code))
    where = f"{name} is in {outcome.shard} as number {outcome.sequence}"
    if denied is None:
        return Finding(message=where, http_status=200)
    return Finding(
        status="warning",
        code=aws_code(denied),
        message=f"{where}, by PutRecord, because the policy does not grant kinesis:PutRecords",
        http_status=200,
        hint="Grant kinesis:PutRecords as well: without it records go one by one, which is slower.",
    )


def _explain(error: MillraceError) -> Finding:
    details = aws_details(error)
    return Finding(
        status="failed",
        message=error.message,
        code=details.code or error.code,
        http_status=details.http_status,
        hint=hint_for(details.code, details.operation, details.words),
    )


def _explain_identity(error: MillraceError) -> Finding:
    """A denied GetCallerIdentity does not fail the test; a denied AssumeRole does."""
    found = _explain(error)
    if not isinstance(error, DeniedError) or aws_details(error).operation != "GetCallerIdentity":
        return found
    return Finding(
        status="unknown",
        message="the key may not ask whose it is, which sending does not need",
        code=found.code,
        http_status=found.http_status,
    )


def _explain_stream(error: MillraceError) -> Finding:
    """A denied DescribeStreamSummary does not fail the test: a key that may only write is a good key."""
    found = _explain(error)
    if not isinstance(error, DeniedError):
        return found
    return Finding(
        status="unknown",
        message="the key may not look at the stream, which sending does not need",
        code=found.code,
        http_status=found.http_status,
    )
