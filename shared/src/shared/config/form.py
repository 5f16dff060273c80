"""Forms: a configuration of which every field may be left out, for `Registry.form_over_saved`."""

from typing import Annotated, Any, get_args, get_origin

import msgspec
from msgspec import Struct

from shared.config.secret import Secret


def form_type(name: str, config: type[Struct], doc: str, **fields: Any) -> type[Struct]:
    """
    A Struct with the fields of `config`, each of its plain type or null, and null where it is left out.

    Bounds of a field are left to the configuration, and a secret is a string: in a form it may be masked.

    Args:
        name: The name of the Struct, as OpenAPI shows it.
        doc: Its docstring, likewise.
        fields: The types of further fields, or types to use instead, or `(type, default)`.
    """
    plain = {field.name: _plain(field.type) for field in msgspec.structs.fields(config)}
    return msgspec.defstruct(
        name,
        [_field(field, annotation) for field, annotation in (plain | fields).items()],
        namespace={"__doc__": doc},
        frozen=True,
        kw_only=True,
        omit_defaults=True,
        forbid_unknown_fields=True,
    )


def _field(name: str, annotation: Any) -> tuple[str, Any, Any]:
    if isinstance(annotation, tuple):
        return (name, *annotation)
    return name, annotation | None, None


def _plain(annotation: Any) -> Any:
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    return str if annotation is Secret else annotation
