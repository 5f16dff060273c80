"""Effect of a configuration change on records that wait."""

from collections.abc import Callable, Mapping, Sequence

from hooks.delivery.counters import HookCounters
from hooks.delivery.model import CallPolicy, Outcome, Record
from hooks.delivery.targets import ActiveConnector, Targets
from hooks.matching.hook import Hook
from hooks.matching.rule import HookIndex, Rule, Target
from shared.errors import NotFoundError
from shared.runtime.retry import Backoff
from shared.runtime.telemetry import Metrics
from support.fakes.rules import by_target
from support.fakes.sink import NOW, MemorySink, RecordingDeadLetters, RecordingObserver, make_record

NEVER = Backoff(first_s=10**9, max_s=10**9)


def missing(sink: MemorySink, batch: Sequence[Record]) -> Sequence[Outcome]:
    raise NotFoundError("there is no such stream")


class Streams:
    """An account in memory: a sink per stream. A stream in `without` does not exist."""

    def __init__(self, *without: str) -> None:
        self.sinks: dict[str, MemorySink] = {}
        self.without = without

    def __call__(self, stream_name: str) -> MemorySink:
        sink = self.sinks.setdefault(stream_name, MemorySink())
        sink.answers = [missing] * 100 if stream_name in self.without else []
        return sink

    def stored(self, stream_name: str) -> list[str]:
        return [record.source for record in self.sinks[stream_name].stored] if stream_name in self.sinks else []


def index(*streams: tuple[str, str], revision: int = 1) -> HookIndex:
    """Hooks of `shop`, by id and stream."""
    return HookIndex(
        Rule(
            app_key="shop",
            hook_id=hook_id,
            revision=revision,
            hook=Hook(name=hook_id, stream_name=stream, trigger_type="EVENT", event_code="*"),
        )
        for hook_id, stream in streams
    )


class Scene:
    """Targets of `shop`, with hooks that put records."""

    def __init__(self) -> None:
        self.heard = RecordingObserver()
        self.counters = HookCounters(lambda: NOW)
        self.done: list[str] = []
        self.count = 0
        self.targets = Targets(
            CallPolicy(retry=NEVER, probe=NEVER),
            observer=self.heard,
            dead_letters=RecordingDeadLetters(),
            metrics=Metrics(),
        )

    def apply(self, rules: HookIndex, connectors: Mapping[str, ActiveConnector]) -> None:
        self.targets.apply(rules, by_target(rules, connectors))

    def put(self, hook_id: str, user: str = "ann", partition: int | None = None) -> str:
        """A record of a hook, as a partition puts it."""
        self.count += 1
        record = make_record(
            key=user,
            data=b"{}",
            hook_id=hook_id,
            source=str(self.count),
            counters=self.counters,
            done=lambda record: self.done.append(record.source),
            partition=partition,
        )
        queue = self.targets.find(self.targets.index.of_app("shop").rules[hook_id].target)
        assert queue is not None
        queue.put(record)
        return record.source

    async def wait(self, condition: Callable[[], bool]) -> None:
        import asyncio

        while not condition():
            await asyncio.sleep(0)

    async def wait_paused(self, stream_name: str) -> None:
        queue = self.targets.find(Target("shop", stream_name))
        assert queue is not None
        await self.wait(lambda: queue.error is not None)


async def test_each_stream_has_a_queue_of_its_own() -> None:
    scene, streams = Scene(), Streams()
    async with scene.targets:
        scene.apply(index(("one", "a"), ("two", "b")), {"shop": ActiveConnector(revision=1, open=streams)})
        first, second = scene.put("one"), scene.put("two")
        await scene.wait(lambda: len(scene.done) == 2)

    assert ([first], [second]) == (streams.stored("a"), streams.stored("b"))


async def test_there_is_no_queue_without_an_active_connector() -> None:
    scene = Scene()
    async with scene.targets:
        scene.apply(index(("one", "a")), {"rival": ActiveConnector(revision=1, open=Streams())})

        assert scene.targets.find(Target("shop", "a")) is None


async def test_a_new_revision_of_the_connector_resumes_at_once() -> None:
    scene, before, after = Scene(), Streams("a"), Streams()
    async with scene.targets:
        scene.apply(index(("one", "a")), {"shop": ActiveConnector(revision=1, open=before)})
        sources = [scene.put("one"), scene.put("one")]
        await scene.wait_paused("a")
        scene.apply(index(("one", "a")), {"shop": ActiveConnector(revision=2, open=after)})
        await scene.wait(lambda: len(scene.done) == 2)

    assert sources == after.stored("a")
    assert ["paused a: not_found", "resumed a"] == scene.heard.said


async def test_a_change_elsewhere_does_not_resume() -> None:
    scene, streams = Scene(), Streams("a")
    async with scene.targets:
        connectors = {"shop": ActiveConnector(revision=1, open=streams)}
        scene.apply(index(("one", "a")), connectors)
        scene.put("one")
        await scene.wait_paused("a")
        scene.apply(index(("one", "a"), ("two", "b")), connectors)
        await scene.wait_paused("a")

    assert 1 == len(streams.sinks["a"].batches)


async def test_what_waits_follows_its_hook_to_the_right_stream() -> None:
    scene, streams = Scene(), Streams("typo")
    async with scene.targets:
        connectors = {"shop": ActiveConnector(revision=1, open=streams)}
        scene.apply(index(("moving", "typo"), ("staying", "typo")), connectors)
        moving = [scene.put("moving")]
        scene.put("staying")
        moving.append(scene.put("moving"))
        await scene.wait_paused("typo")
        scene.apply(index(("moving", "right"), ("staying", "typo")), connectors)
        moving.append(scene.put("moving"))
        await scene.wait(lambda: len(scene.done) == 3)

    assert moving == streams.stored("right")
    assert [] == streams.stored("typo")


async def test_what_waits_is_let_go_when_its_hook_is_deleted() -> None:
    scene, streams = Scene(), Streams("a")
    async with scene.targets:
        connectors = {"shop": ActiveConnector(revision=1, open=streams)}
        scene.apply(index(("one", "a")), connectors)
        source = scene.put("one")
        await scene.wait_paused("a")
        scene.apply(index(), connectors)

    assert [source] == scene.done
    assert 1 == scene.counters.skipped_inactive


async def test_what_waits_is_let_go_when_the_connector_becomes_inactive() -> None:
    scene, streams = Scene(), Streams("a")
    async with scene.targets:
        scene.apply(index(("one", "a")), {"shop": ActiveConnector(revision=1, open=streams)})
        source = scene.put("one")
        await scene.wait_paused("a")
        scene.apply(index(("one", "a")), {})

        assert scene.targets.find(Target("shop", "a")) is None

    assert [source] == scene.done
    assert 1 == scene.counters.skipped_inactive


async def test_drain_empties_every_target_that_answers() -> None:
    scene, streams = Scene(), Streams("gone")
    async with scene.targets:
        scene.apply(index(("one", "a"), ("two", "gone")), {"shop": ActiveConnector(revision=1, open=streams)})
        stuck = scene.put("two")
        await scene.wait_paused("gone")
        sources = [scene.put("one") for _ in range(5)]
        await scene.targets.drain()

    assert sources == streams.stored("a")
    assert stuck not in scene.done


async def test_what_waits_for_a_hook_is_counted_and_can_be_withdrawn() -> None:
    scene, streams = Scene(), Streams("orders")
    async with scene.targets:
        scene.apply(index(("all", "orders"), ("other", "orders")), {"shop": ActiveConnector(revision=1, open=streams)})
        queue = scene.targets.find(Target("shop", "orders"))
        assert queue is not None
        records = [
            make_record(
                key=user,
                data=b"{}",
                hook_id=hook_id,
                source="s",
                counters=scene.counters,
                done=lambda _: None,
                at_ns=at_ns,
            )
            for user, hook_id, at_ns in (("ann", "all", 7), ("ann", "all", 8), ("bob", "other", 5), ("bob", "all", 0))
        ]
        for record in records:
            queue.put(record)

        # What has no time comes from no event.
        assert {("shop", "all"): (2, 7), ("shop", "other"): (1, 5)} == scene.targets.waiting("shop")
        scene.targets.withdraw({records[0]})
        assert {("shop", "all"): (1, 8), ("shop", "other"): (1, 5)} == scene.targets.waiting()
        assert {} == scene.targets.waiting("other")


async def test_only_the_records_of_a_lost_partition_are_dropped() -> None:
    told, streams = Scene(), Streams()
    async with told.targets:
        told.apply(index(("all", "orders")), {"shop": ActiveConnector(revision=1, open=streams)})
        told.put("all", "ann", partition=3)
        kept = told.put("all", "bob", partition=4)
        told.put("all", "ann", partition=3)
        told.targets.drop_partition(3)
        await told.wait(lambda: bool(told.done))

    assert [kept] == told.done == streams.stored("orders")
