"""The part of an app's events that one lane of an export reads. Pure."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from shared.contracts.subjects import PARTITIONS

Shards = Literal[1, 2, 4, 8, 16]
"""Numbers of lanes: each gives every lane as many partitions of `EVENTS`."""


class Lane(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Lane number `shard`, from 0, of an export whose partitions are split among `shards`.

    A user's events are in one partition, and so in one lane and in their order.
    """

    shards: Shards = 1
    shard: Annotated[int, Meta(ge=0, lt=PARTITIONS)] = 0

    @property
    def partitions(self) -> range:
        """Its partitions of `EVENTS`."""
        return range(self.shard, PARTITIONS, self.shards)

    @property
    def is_whole(self) -> bool:
        """Whether it has all partitions."""
        return self.shards == 1


WHOLE: Final = Lane()


def lanes_of(shards: Shards) -> tuple[Lane, ...]:
    """All lanes of an export with so many."""
    return (WHOLE,) if shards == 1 else tuple(Lane(shards=shards, shard=shard) for shard in range(shards))
