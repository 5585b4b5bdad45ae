"""JSON Schema of a type, in the strict form that every provider takes."""

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec

Schema = dict[str, Any]
Order = tuple[Any, ...]

_DATA: Final = ("enum", "const", "default", "examples")  # keywords whose values are no schemas
_TYPES: Final[Mapping[type, str]] = {str: "string", int: "integer"}


def json_schema(kind: Any) -> Schema:  # noqa: ANN401 - any type, also a union
    """Return the JSON Schema of ``kind``: closed, all fields required, each type once, enums in their own order.

    It has what the annotations say, and no class names and docstrings: a text for the model is a
    ``Meta(description=…)``. The root is no reference; a type that contains itself refers to ``#``.
    """
    classes = list(_classes(kind, set()))
    (root, *references), named = msgspec.json.schema_components([kind, *classes], ref_template="#/$defs/{name}")
    orders = {_name(part): _orders(cls) for part, cls in zip(references, classes, strict=True)}
    definitions = {name: _definition(part, orders.get(name, {})) for name, part in named.items()}
    top = _name(root)
    schema = definitions.pop(top, None) if top else _strict(root, tuple(_literals(kind)))
    if schema is None:
        raise TypeError(f"{kind!r} has no schema of its own")
    if definitions:
        schema["$defs"] = definitions
    return _at_root(schema, f"#/$defs/{top}") if top else schema


def _name(schema: Schema) -> str:
    """Return the name of the definition that ``schema`` refers to; empty for no reference."""
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _parts(annotation: Any) -> Iterator[Any]:  # noqa: ANN401 - an annotation
    """Yield an annotation and all annotations within it, but not those of a class's fields."""
    yield annotation
    inner = getattr(annotation, "__value__", None) or getattr(annotation, "__supertype__", None)
    if inner is not None and not isinstance(annotation, Enum):
        yield from _parts(inner)
    if get_origin(annotation) is not Literal:
        for part in get_args(annotation):
            yield from _parts(part)


def _literals(annotation: Any) -> Iterator[Order]:  # noqa: ANN401 - an annotation
    return (get_args(part) for part in _parts(annotation) if get_origin(part) is Literal)


def _classes(annotation: Any, seen: set[Any]) -> Iterator[Any]:  # noqa: ANN401 - an annotation
    """Yield each class with fields, and each enum, that ``annotation`` contains at any depth."""
    for part in _parts(annotation):
        cls = get_origin(part) or part
        if not isinstance(cls, type) or part in seen:
            continue
        seen.add(part)
        hints = {} if issubclass(cls, Enum) else get_type_hints(cls, include_extras=True)
        if hints or issubclass(cls, Enum):
            yield part
        for hint in hints.values():
            yield from _classes(hint, seen)


def _orders(part: Any) -> dict[str, tuple[Order, ...]]:  # noqa: ANN401 - a class, or a generic one with its arguments
    """Return the orders of values by the name of the property; under the empty name those for any property."""
    cls = get_origin(part) or part
    if issubclass(cls, Enum):
        return {"": (tuple(member.value for member in cls),)}
    wire = {field.name: field.encode_name for field in msgspec.structs.fields(cls)} if _is_struct(cls) else {}
    hints = get_type_hints(cls, include_extras=True)
    orders = {wire.get(name, name): tuple(_literals(hint)) for name, hint in hints.items()}
    return {**orders, "": (*_literals(part), *(order for found in orders.values() for order in found))}


def _is_struct(cls: type) -> bool:
    return issubclass(cls, msgspec.Struct)


def _definition(schema: Schema, orders: Mapping[str, tuple[Order, ...]]) -> Schema:
    """Return a class's schema without its name and docstring."""
    bare = {key: value for key, value in schema.items() if key not in ("title", "description")}
    general = orders.get("", ())
    properties = {
        name: _strict(part, orders.get(name, ()) + general) for name, part in bare.get("properties", {}).items()
    }
    strict: Schema = _strict(bare, general)
    return strict | {"properties": properties} if properties else strict


def _strict(schema: Any, orders: tuple[Order, ...]) -> Any:  # noqa: ANN401 - any part of a schema
    if isinstance(schema, list):
        return [_strict(part, orders) for part in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: value if key in _DATA else _strict(value, orders) for key, value in schema.items()}
    if "enum" in schema:
        strict = _values(strict, orders)
    if schema.get("type") == "object" and "properties" in schema:
        strict |= {"required": list(schema["properties"]), "additionalProperties": False}
    return strict


def _values(schema: Schema, orders: tuple[Order, ...]) -> Schema:
    """Return an enum with its type, where it has one, and with its values in the order of the annotation."""
    values = schema["enum"]
    own = next((order for order in orders if {*values} == {*order}), values)
    rest = {key: value for key, value in schema.items() if key not in ("type", "enum")}
    kinds = {type(value) for value in values}
    typed = {"type": _TYPES[kinds.pop()]} if len(kinds) == 1 and kinds <= _TYPES.keys() else {}
    return {**rest, **typed, "enum": [*own]}


def _at_root(schema: Any, reference: str) -> Any:  # noqa: ANN401 - any part of a schema
    """Return ``schema`` with the references to its root's definition, which is gone, as references to the root."""
    if isinstance(schema, list):
        return [_at_root(part, reference) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: "#" if key == "$ref" and value == reference else value if key in _DATA else _at_root(value, reference)
        for key, value in schema.items()
    }
