"""
Hooks against what a user would write: from JetStream to acknowledged PutRecords, in events per second of CPU of the
process that delivers, beside them by the clock.

The others are nats-py's `fetch()` with msgspec and aiobotocore's `put_records`, and with async-kinesis, one call after
the other, without order, isolation or a window. Kinesis is a stub in a process of its own, which answers as Kinesis
does and forgets.

Order costs nothing where no user has two events: lanes never queue. So the same code on users that are all different is
what it is compared with, in batches of 100, where a record's own way is most of the work. Users by Zipf's law are what
packing is for; without it the most active one has one event a round trip, and the whole window fills with his.
"""

from msgspec import Struct

from hooks.matching.hook import BatchSettings
from millrace.verbs.bench import Report, Row, compare

from .events import EVENT_BYTES, USERS, Drawn, Load
from .kinesis_stub import Options
from .runs import ASYNC_KINESIS, PUT_RECORDS, Rate, Side, has_async_kinesis, ours, p99_ms, peaks_mb, rate

NAME = "hooks"
BATCH = 100
ROUNDS = 3
NEAR = Options()
DELAYED = Options(delay_s=0.02)
REFUSING = Options(refuses=0.05)
MEASURING_AGES = Options(measures_ages=True)

WAITING = Load(1_000_000, BATCH)
SLOW = Options(delay_s=0.2)
PEAK_S = 10.0

ZIPF_SINGLE = 10_000
"""Of these the most active user has a tenth, one a round trip."""

PACE = 20_000
PACED_BATCH = 10
LINGER_MS = 50
PACED_WARM_S, PACED_S = 2.0, 6.0

SINGLE, PACKED = ours(BatchSettings()), ours(BatchSettings(format="json_array"))


class _Case(Struct, frozen=True):
    """The deliverers, the data, and the Kinesis."""

    side: Side
    drawn: Drawn = "uniform"
    options: Options = NEAR
    events: int | None = None


OURS, FAR, NO_ORDER = _Case(SINGLE), _Case(SINGLE, options=DELAYED), _Case(SINGLE, drawn="distinct")
OTHERS = [_Case(side) for side in (PUT_RECORDS, *([ASYNC_KINESIS] if has_async_kinesis() else []))]


async def rows(report: Report) -> list[Row]:
    """Events per second of CPU, megabytes, milliseconds."""
    if not has_async_kinesis():
        report("async-kinesis is not installed: no comparison with it")
    bench = _Bench(report)
    singles, far, *others = await bench.in_turn("single events", 1, OURS, FAR, *OTHERS)
    found = _speed_rows("single events", singles, far, others, faster=4, at_least=100_000)
    name = f"batches of {BATCH}"
    batches, far, free, *others = await bench.in_turn(name, BATCH, OURS, FAR, NO_ORDER, *OTHERS)
    found += _speed_rows(name, batches, far, others, faster=3, at_least=200_000)
    return [
        *found,
        *await bench.order(batches, free),
        await _peak_row(report),
        await _latency_row(report),
    ]


class _Bench:
    """The rates, and what was seen of order in all of ours."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._inversions = 0

    async def in_turn(self, name: str, batch: int, *cases: _Case) -> list[list[Rate]]:
        """One after the other and all again, because the machine is faster at one time than at another."""
        self._report(f"events of {EVENT_BYTES} bytes, {name}, of {USERS} users, {ROUNDS} rounds in turn")
        found: list[list[Rate]] = [[] for _ in cases]
        for _ in range(ROUNDS):
            for case, rates in zip(cases, found, strict=True):
                rates.append(await self._rate(case, batch))
        return found

    async def order(self, ordered: list[Rate], free: list[Rate]) -> list[Row]:
        """Against the same code where nothing has to wait for its turn."""
        self._report("the same with users by Zipf's law, packed and single, and with records that fail")
        packed = await self._rate(_Case(PACKED, "zipf", MEASURING_AGES), BATCH)
        single = await self._rate(_Case(SINGLE, "zipf", events=ZIPF_SINGLE), BATCH)
        refused = await self._rate(_Case(SINGLE, options=REFUSING), BATCH)
        return [
            _row("order, against no order", ordered, free, at_least=0.85),
            _row("zipf users packed by json_array, against no order", [packed], free, at_least=0.85),
            _row("zipf users, format single, against no order", [single], free),
            _row("5 % of the records fail, against none", [refused], ordered, at_least=0.85),
            compare("order inversions in all of these", [self._inversions], [0], "records", ours_at_most=0),
        ]

    async def _rate(self, case: _Case, batch: int) -> Rate:
        events = case.events or case.side.events(batch)
        found = await rate(case.side, batch, drawn=case.drawn, options=case.options, events=events)
        self._inversions += found.inversions
        about = "".join(
            (", far away" if case.options is DELAYED else "", ", each user once" if case.drawn == "distinct" else "")
        )
        self._report(f"  {case.side.name}{about}: {found.cpu:.0f} events/CPU s, {found}")
        return found


def _speed_rows(
    name: str, ours: list[Rate], far: list[Rate], others: list[list[Rate]], *, faster: float, at_least: float
) -> list[Row]:
    """Against the others, and against itself when Kinesis is far away."""
    found = []
    for place, (case, other) in enumerate(zip(OTHERS, others, strict=True)):
        goal = at_least if place == 0 else None
        found.append(_row(f"{name}, against {case.side.name}", ours, other, at_least=faster, ours_at_least=goal))
    return [*found, _row(f"{name}, at 20 ms of round trip against none", far, ours, at_least=0.8)]


def _row(
    name: str,
    ours: list[Rate],
    other: list[Rate],
    *,
    at_least: float | None = None,
    ours_at_least: float | None = None,
) -> Row:
    return compare(
        name,
        [one.cpu for one in ours],
        [one.cpu for one in other],
        "events/CPU s",
        at_least=at_least,
        ours_at_least=ours_at_least,
        beside=f"{ours[-1]}; {other[-1]}",
    )


async def _peak_row(report: Report) -> Row:
    report(f"{WAITING.events} events wait in batches of {BATCH}: the first {PEAK_S:g} s of delivering them")
    peak, other = await peaks_mb([SINGLE, PUT_RECORDS], WAITING, options=SLOW, last_s=PEAK_S)
    return compare(
        f"peak RSS, {WAITING.events} events waiting, against {PUT_RECORDS.name}",
        [peak],
        [other],
        "MB",
        ours_at_most=200,
        beside=f"Kinesis answers after {SLOW.delay_s * 1e3:g} ms",
    )


async def _latency_row(report: Report) -> Row:
    report(f"{PACE} events/s in batches of {PACED_BATCH} for {PACED_WARM_S + PACED_S:g} s, linger {LINGER_MS} ms")
    found = []
    for side in (ours(BatchSettings(linger_ms=LINGER_MS)), PUT_RECORDS):
        found.append(await p99_ms(side, PACE, PACED_BATCH, warm_s=PACED_WARM_S, last_s=PACED_S))
        report(f"  {side.name}: {found[-1][0]:.0f} ms")
    (late, pace), (other_late, other_pace) = found
    return compare(
        f"p99 latency, linger {LINGER_MS} ms, against {PUT_RECORDS.name}",
        [late],
        [other_late],
        "ms",
        ours_at_most=250,
        beside=f"{pace:.0f} and {other_pace:.0f} events/s were published",
    )
