"""
The kinds of configuration of this service: hooks, and the connectors of its sinks. The Structs and their bounds stand
beside the code that obeys them.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from hooks.dead_letters.writer import ENTRANCE
from hooks.matching.hook import DEFAULT_TYPE, Hook
from hooks.sinks import SINKS, HookType
from shared.config.registry import Kind

# Matching stands below the sinks and takes any type; what is saved has the type of a sink.
_saved_hook: Any = msgspec.defstruct(
    Hook.__name__,
    [("type", HookType, DEFAULT_TYPE)],
    bases=(Hook,),
    namespace={"__doc__": Hook.__doc__},
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
)

HOOKS: Final[Kind[Hook]] = Kind(prefix="hooks", type=_saved_hook, reserved=frozenset({ENTRANCE}))
"""A hook's id is the owner of its dead letters, and so is `entrance`."""
CONNECTORS: Final[Mapping[str, Kind[Any]]] = {
    sink.connector: Kind(prefix="connectors", type=sink, fixed_id=sink.connector)
    for sink in SINKS.values()
    if sink.connector is not None
}
"""The kinds of connectors, by their id."""
