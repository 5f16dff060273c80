"""
What of the configuration registry is this service's: hooks, and the connectors of its sinks. The Structs and their
bounds lie beside the code that obeys them.
"""

from typing import Any

from hooks.matching.hook import Hook
from hooks.sinks.kinesis.sink import NAME as KINESIS_NAME
from hooks.sinks.kinesis.sink import KinesisConfig
from shared.config.registry import Kind, Registry

HOOKS = Kind(prefix="hooks", type=Hook)
KINESIS = Kind(prefix="connectors", type=KinesisConfig, fixed_id=KINESIS_NAME)


async def read_kinesis(registry: Registry, app_key: str, form: dict[str, Any], *, allow_private: bool) -> KinesisConfig:
    """
    The values of a form over the saved ones; a secret that is left out or masked is the saved one.

    Raises:
        InvalidError: A field is wrong; names it.
        NotFoundError: The form is empty and nothing is saved.
    """
    config = await registry.form_over_saved(KINESIS, app_key, form)
    return config.checked(allow_private=allow_private, app_key=app_key)
