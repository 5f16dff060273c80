"""
Look at streams, buckets and consumers before a service works with them. It asks for information and changes nothing.
"""

import asyncio
import json
from collections.abc import Sequence

import structlog
from nats.errors import Error as NatsError

from shared.contracts import jetstream
from shared.contracts.consumers import DurableConsumer
from shared.contracts.streams import Bucket, Stream
from shared.errors import UnavailableError
from shared.messaging.bus import Bus
from shared.messaging.provisioning.configurations import (
    differences,
    stream_of,
    title,
    wanted_by_service,
    wanted_consumer,
)
from shared.runtime.retry import Backoff

log = structlog.get_logger()

WAIT_S = 30.0
"""Time in which `millrace provision` may run beside a service that starts."""
AGAIN = Backoff(first_s=0.2, max_s=2.0)
ANSWER_S = 5.0
REMEDY = "run `millrace provision`"


async def wait_provisioned(
    bus: Bus, specs: Sequence[Stream | Bucket], consumers: Sequence[DurableConsumer], *, wait_s: float = WAIT_S
) -> None:
    """
    Wait until all of these are there as this release needs them.

    Raises:
        UnavailableError: They are not within `wait_s`; names each, what was expected and what was found.
    """
    deadline = asyncio.get_running_loop().time() + wait_s
    said: list[str] = []
    for delay_s in AGAIN.delays():
        problems = await find_problems(bus, specs, consumers)
        if not problems:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise UnavailableError(f"NATS is not provisioned for this release: {' | '.join(problems)}; {REMEDY}")
        if problems != said:
            log.warning("provisioning_awaited", problems=problems, remedy=REMEDY)
            said = problems
        await asyncio.sleep(delay_s)


async def find_problems(bus: Bus, specs: Sequence[Stream | Bucket], consumers: Sequence[DurableConsumer]) -> list[str]:
    """A sentence for each stream, bucket or consumer that is missing, not as this release needs it, or not told."""
    found = await asyncio.gather(*(_problem(bus, spec) for spec in (*specs, *consumers)))
    return [problem for problem in found if problem is not None]


async def _problem(bus: Bus, spec: Stream | Bucket | DurableConsumer) -> str | None:
    if isinstance(spec, DurableConsumer):
        question = jetstream.consumer_info(spec.stream.name, spec.name)
    else:
        question = jetstream.stream_info(stream_of(spec))
    try:
        answer = json.loads((await bus.client.request(question, b"", timeout=ANSWER_S)).data)
    except (NatsError, TimeoutError, ConnectionError) as error:
        return f"{title(spec)}: NATS does not tell ({type(error).__name__})"
    if refusal := answer.get("error"):
        missing = refusal["code"] == 404
        return f"{title(spec)} is missing" if missing else f"{title(spec)}: {refusal.get('description')}"
    found = answer["config"]
    wanted = wanted_consumer(spec) if isinstance(spec, DurableConsumer) else wanted_by_service(spec, found)
    told = differences(found, wanted)
    return f"{title(spec)}: {', '.join(map(str, told))}" if told else None
