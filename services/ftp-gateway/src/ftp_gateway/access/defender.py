"""
Scores of addresses, shared by all replicas: stored in the bucket `DEFENDER`, read from a copy in memory.

`is_banned` and `record_failure` never wait. A failure counts here at once, and a task of the service publishes it to
the other replicas. One or two failures are not published, since most such clients then find their password. Without
NATS each replica goes on with the scores it has.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog
from msgspec import Struct

from ftp_gateway.access.bans import BanRules, Score, after_failures
from shared.client_addresses import network_of
from shared.contracts import keys, streams
from shared.contracts.messages import encode
from shared.errors import ConflictError, MillraceError, NotFoundError
from shared.messaging.bus import Bus
from shared.messaging.kv import KeyValue, KeyValueStore, is_deletion
from shared.messaging.message import Message
from shared.messaging.watch import watch_entries
from shared.runtime.retry import Backoff

log = structlog.get_logger()

MAX_SCORES = 20_000
"""Addresses that are remembered, about 10 MB. One more replaces the one that was quiet for longest."""
PUBLISH_FROM = 3
"""Failures of an address from which its score is published to the other replicas."""
RELIST_S = 300.0
"""Interval at which the watch is opened again, because watches have been seen to die silently."""
SWEEP_INTERVAL = timedelta(minutes=1)


class StoredScore(Struct, frozen=True):
    """A score in the bucket, as last seen by this replica."""

    score: Score | None
    """None where the entry cannot be read; the next failures write over it."""
    revision: int


class Defender:
    """
    Bans of addresses. `keep` is a task of the service.

    Args:
        clock: Aware UTC.
    """

    def __init__(self, bus: Bus, rules: BanRules, clock: Callable[[], datetime]) -> None:
        self._bus = bus
        self._store = KeyValueStore(bus, streams.DEFENDER)
        self._rules = rules
        self._clock = clock
        self._scores: dict[str, Score] = {}
        self._shared: dict[str, StoredScore] = {}
        self._unpublished: dict[str, int] = {}
        self._publishing: str | None = None
        self._received_meanwhile: tuple[KeyValue, bool] | None = None
        self._wake = asyncio.Event()
        self._swept_at = clock()

    def is_banned(self, address: str) -> bool:
        """Return whether an address is banned now."""
        score = self._scores.get(network_of(address))
        return score is not None and score.is_banned(self._clock())

    def bans(self) -> list[Score]:
        """Return the scores of banned addresses, the longest ban first."""
        now = self._clock()
        kept_out = (score for score in self._scores.values() if score.is_banned(now))
        return sorted(kept_out, key=lambda score: score.banned_until or now, reverse=True)

    def record_failure(self, address: str) -> None:
        """Count a wrong password or key from an address."""
        network = network_of(address)
        before = self._scores.get(network)
        self._unpublished[network] = self._unpublished.get(network, 0) + 1
        self._set_score(network, after_failures(before, address, 1, self._clock(), self._rules))
        if network in self._shared or self._unpublished[network] >= min(PUBLISH_FROM, self._rules.failures):
            self._wake.set()

    async def lift(self, address: str) -> None:
        """
        Lift the ban of an address, on all replicas.

        Raises:
            NotFoundError: The address is not banned.
            UnavailableError: NATS does not answer.
        """
        network = network_of(address)
        if not self.is_banned(address):
            raise NotFoundError("this address is not banned")
        await self._store.delete(keys.defender_key(network))
        self._forget(network)
        log.info("ban_lifted", address=network)

    async def run(self) -> None:
        """Follow the scores of the other replicas and publish ours, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch())
            tasks.create_task(self._publish())

    async def _watch(self) -> None:
        await watch_entries(
            self._bus,
            streams.DEFENDER,
            ">",
            self._receive,
            known=lambda: [keys.defender_key(network) for network in self._shared],
            drop=lambda key: self._forget(keys.network_of_defender_key(key)),
            relist_s=RELIST_S,
        )

    async def _receive(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._apply(self._store.stored(message), deleted=is_deletion(message.headers))

    def _apply(self, stored: KeyValue, *, deleted: bool) -> None:
        network = keys.network_of_defender_key(stored.key)
        if network == self._publishing:
            # This may be the score that is just being published, whose failures must not count twice.
            self._received_meanwhile = stored, deleted
            return
        known = self._shared.get(network)
        if known is not None and known.revision >= stored.revision:
            return
        if deleted:
            self._forget(network)
            return
        self._set_stored(network, self._read(stored))

    def _set_stored(self, network: str, shared: StoredScore) -> None:
        self._shared[network] = shared
        score = shared.score
        if unpublished := self._unpublished.get(network):
            score = after_failures(score, network, unpublished, self._clock(), self._rules)
        if score is not None:
            self._set_score(network, score)

    def _read(self, stored: KeyValue) -> StoredScore:
        return StoredScore(self._store.decoded(stored.key, stored.data, Score), stored.revision)

    async def _publish(self) -> None:
        waits = iter(Backoff(first_s=0.2, max_s=10.0).delays())
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                for network in [network for network in self._unpublished if self._is_due(network)]:
                    await self._publish_score(network)
                waits = iter(Backoff(first_s=0.2, max_s=10.0).delays())
            except MillraceError as error:
                log.warning("scores_publish_failed", message=error.message)
                await asyncio.sleep(next(waits))
                self._wake.set()

    def _is_due(self, network: str) -> bool:
        return network in self._shared or self._unpublished[network] >= min(PUBLISH_FROM, self._rules.failures)

    async def _publish_score(self, network: str) -> None:
        key = keys.defender_key(network)
        while count := self._unpublished.get(network):
            known = self._shared.get(network)
            score = after_failures(known.score if known else None, network, count, self._clock(), self._rules)
            self._publishing = network
            try:
                revision = await self._store.put(key, encode(score), expect_revision=known.revision if known else 0)
                # While NATS answered, more failures may have come, or all may have been forgotten.
                if network in self._unpublished:
                    self._unpublished[network] -= count
                    if not self._unpublished[network]:
                        del self._unpublished[network]
                    self._set_stored(network, StoredScore(score, revision))
                return
            except ConflictError:
                stored = await self._store.get(key)
                self._shared.pop(network, None)
                if stored is not None:
                    self._set_stored(network, self._read(stored))
            finally:
                self._publishing = None
                if self._received_meanwhile is not None:
                    received, self._received_meanwhile = self._received_meanwhile, None
                    self._apply(received[0], deleted=received[1])

    def _set_score(self, network: str, score: Score) -> None:
        before, now = self._scores.pop(network, None), self._clock()
        self._scores[network] = score
        until = score.banned_until
        # Computed again when it is published, it is the same ban, and ends a moment later.
        if until is not None and score.is_banned(now) and not (before is not None and before.is_banned(now)):
            log.warning("address_banned", address=network, until=until.isoformat(timespec="seconds"), bans=score.bans)
        self._sweep()

    def _sweep(self) -> None:
        now = self._clock()
        if now - self._swept_at >= SWEEP_INTERVAL:
            self._swept_at = now
            for network in [network for network, score in self._scores.items() if score.is_forgotten(now)]:
                self._forget(network)
        while len(self._scores) > MAX_SCORES:
            self._forget(next(iter(self._scores)))

    def _forget(self, network: str) -> None:
        for known in (self._scores, self._shared, self._unpublished):
            known.pop(network, None)
