"""A sink with random behaviour within its port. No test lives here."""

import random
from collections.abc import Sequence

from hooks.delivery.model import Failed, Outcome, Record, Sent
from shared.errors import BusyError, CredentialsError, InvalidError, UnavailableError
from support.fakes.sink import Answer, MemorySink, store_all

CALLS = [
    "ok",
    "some",
    "some",
    "none",
    "lost",
    "silent",
    "cut",
    "short",
    "long",
    "throttled",
    "denied",
    "invalid",
    "bug",
]


def chaos(dice: random.Random) -> Answer:
    """A call in which anything may happen that a sink is allowed to do."""

    def maybe(sink: MemorySink, record: Record, odds: float) -> Outcome:
        if dice.random() >= odds:
            return sink.store(record)
        named = f"Rate exceeded for shard shardId-{len(record.key) % 3:012d} in stream orders under account 1."
        return Failed("ProvisionedThroughputExceededException", dice.choice([named, "Internal Service Failure"]))

    def answer(sink: MemorySink, batch: Sequence[Record]) -> Sequence[Outcome]:
        event = dice.choice(CALLS)
        if event in ("some", "none"):
            return [maybe(sink, record, 0.5 if event == "some" else 1) for record in batch]
        if event == "lost":
            raise UnavailableError("connection refused")
        if event == "throttled":
            raise BusyError("limit exceeded")
        if event == "denied":
            raise CredentialsError("the token has expired")
        if event == "invalid" and len(batch) + sum(record.events for record in batch) > 2:
            raise InvalidError("validation failed")
        if event == "bug":
            raise ZeroDivisionError
        if event == "cut":
            # The answer to a call that was stored in part never came.
            store_all(sink, [record for record in batch if dice.random() < 0.5])
            raise UnavailableError("connection reset")
        outcomes = store_all(sink, batch)
        if event == "silent":
            raise UnavailableError("timeout")
        if event == "short":
            return outcomes[:-1]
        return [*outcomes, Sent()] if event == "long" else outcomes

    return answer
