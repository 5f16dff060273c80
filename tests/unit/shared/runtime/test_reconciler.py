"""Work follows the configuration, and the stored data of a deleted entry is erased."""

import asyncio
from collections.abc import Mapping

from shared.errors import UnavailableError
from shared.runtime.reconciler import ERASE_RETRY_S, Reconciler
from support.virtual_time import run_virtually


class Configuration:
    """Jobs, their stored data, and the number of failures of listing or erasing."""

    def __init__(self) -> None:
        self.jobs: dict[str, int] = {}
        self.stored: set[str] = set()
        self.inactive: set[str] = set()
        self.followed: list[dict[str, int]] = []
        self.fails_list = 0
        self.fails_erase: dict[str, int] = {}
        self.tries: list[float] = []
        self.reconciler: Reconciler[str, int] = Reconciler(
            "exports", jobs=lambda: self.jobs, stored_keys=self._stored_keys, erase_if_deleted=self._erase_if_deleted
        )

    async def follow(self, jobs: Mapping[str, int]) -> None:
        self.followed.append(dict(jobs))

    async def _stored_keys(self) -> set[str]:
        if self.fails_list:
            self.fails_list -= 1
            raise UnavailableError("away")
        return set(self.stored)

    async def _erase_if_deleted(self, key: str) -> bool:
        self.tries.append(asyncio.get_running_loop().time())
        if self.fails_erase.get(key):
            self.fails_erase[key] -= 1
            raise UnavailableError("away")
        if key in self.inactive:
            return False
        self.stored.discard(key)
        return True

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def story(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.reconciler.run(self.follow))
            await self.tell()
            self.reconciler.close()

    async def tell(self) -> None:
        await self.pass_time(1000)


def test_what_was_deleted_before_the_start_is_erased_and_the_rest_stays() -> None:
    configuration = Configuration()
    configuration.jobs, configuration.stored, configuration.inactive = {"a": 1}, {"a", "b", "c"}, {"c"}

    run_virtually(configuration.story())

    assert {"a", "c"} == configuration.stored
    assert [{"a": 1}] == configuration.followed
    assert 2 == len(configuration.tries), "nothing is asked again without a change"


def test_an_erasure_that_failed_is_tried_again_after_a_pause_without_a_change() -> None:
    configuration = Configuration()
    configuration.stored, configuration.fails_erase = {"b"}, {"b": 2}

    run_virtually(configuration.story())

    assert set() == configuration.stored
    assert 3 == len(configuration.tries)
    assert all(
        later - earlier >= ERASE_RETRY_S * 0.99
        for earlier, later in zip(configuration.tries, configuration.tries[1:], strict=False)
    )


def test_an_erasure_that_fails_does_not_block_the_others() -> None:
    configuration = Configuration()
    configuration.stored, configuration.fails_erase = {"b", "c"}, {"b": 10**6}

    run_virtually(configuration.story())

    assert {"b"} == configuration.stored


def test_a_list_that_failed_is_tried_again_after_a_pause() -> None:
    configuration = Configuration()
    configuration.stored, configuration.fails_list = {"b"}, 3

    run_virtually(configuration.story())

    assert set() == configuration.stored


def test_a_change_is_followed_at_once_and_what_it_deletes_is_erased() -> None:
    class Deleted(Configuration):
        async def tell(self) -> None:
            self.jobs, self.stored = {"a": 1}, {"a"}
            await self.pass_time(1)
            self.jobs = {}
            self.reconciler.changed()
            await self.pass_time(0.1)

    configuration = Deleted()

    run_virtually(configuration.story())

    assert [{"a": 1}, {}] == configuration.followed
    assert set() == configuration.stored
