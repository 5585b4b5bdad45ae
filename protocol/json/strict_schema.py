"""Converts a caller's JSON Schema to the subset that a vendor's strict mode accepts, where that is possible.

Keywords that the vendor does not support are moved to the description: the answer is validated against the caller's
schema anyway. So are patterns that look around or back. Some schemas can't be converted, such as an object with
arbitrary keys, or are larger than the vendor accepts; the result is then None.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

Schema = dict[str, Any]

_NUMERIC: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_BOUNDS: Final[dict[str, tuple[str, ...]]] = {
    "string": ("pattern", "format", "minLength", "maxLength"),
    "number": _NUMERIC,
    "integer": _NUMERIC,
    "array": ("minItems", "maxItems", "uniqueItems"),
    "object": ("minProperties", "maxProperties"),
    "boolean": (),
    "null": (),
}
_UNSUPPORTED: Final = frozenset(
    {
        "additionalItems",
        "dependencies",
        "dependentRequired",
        "dependentSchemas",
        "else",
        "if",
        "not",
        "patternProperties",
        "prefixItems",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_FORMATS: Final = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid")
_NAMES: Final[dict[type, str]] = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
VALUES: Final = ("enum", "const")
_DATA: Final = (*VALUES, "default", "examples", "example")  # keywords whose values are no schemas
_MAPS: Final = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
_LOOKING: Final = re.compile(r"\(\?<?[=!]|\(\?P=|\\[1-9]|\\k<")  # lookaround and backreferences
_REFERENCE: Final = re.compile(r"#(?:/(?P<place>\$defs|definitions)/(?P<name>[^/]+))?")


class _Subset(msgspec.Struct, frozen=True, kw_only=True):
    """The subset that a vendor supports.

    Attributes:
        bounds: the supported keywords for bounds.
        formats: the supported string formats.
        min_items: the supported values of ``minItems``; None for any.
        all_required: whether every property has to be required; an optional one then allows null.
        typed_values: whether ``enum`` and ``const`` need a ``type``; otherwise they must not have one.
        recursive: whether a definition may contain itself.
        max_depth: the most levels of objects within each other.
        max_properties: the most properties of all objects together.
        max_values: the most values of all enums together.
    """

    bounds: frozenset[str]
    formats: frozenset[str]
    min_items: tuple[int, ...] | None
    all_required: bool
    typed_values: bool
    recursive: bool
    max_depth: int = 10  # OpenAI's limits; Anthropic does not publish its own
    max_properties: int = 5000
    max_values: int = 1000


_OPENAI: Final = _Subset(
    bounds=frozenset({*_NUMERIC, "pattern", "format", "minItems", "maxItems"}),
    formats=frozenset(_FORMATS),
    min_items=None,
    all_required=True,
    typed_values=True,
    recursive=True,
)
_ANTHROPIC: Final = _Subset(
    bounds=frozenset({"format", "minItems"}),
    formats=frozenset({*_FORMATS, "uri"}),
    min_items=(0, 1),
    all_required=False,
    typed_values=False,
    recursive=False,
)
_OPENAI_OPTIONAL: Final = msgspec.structs.replace(_OPENAI, all_required=False)


class _UnsupportedError(Exception):
    """The schema can't be converted."""


def openai_schema(schema: Schema) -> Schema | None:
    """Return ``schema`` for OpenAI's strict mode; None where it can't be converted.

    Every object is closed, and all its properties are required; optional ones allow null: see :func:`without_nulls`.
    """
    prepared = _convert(schema, _OPENAI)
    return prepared if prepared is not None and prepared.get("type") == "object" else None


def anthropic_schema(schema: Schema) -> Schema | None:
    """Return ``schema`` for Anthropic's structured output; None where it can't be converted."""
    return _convert(schema, _ANTHROPIC)


def strict_tool(schema: Schema, *, as_it_is: bool) -> Schema | None:
    """Return a tool's schema for OpenAI's strict mode; None where the tool can't be strict.

    A tool's arguments go to the caller as they are: an optional property must not become one that allows null.

    Args:
        schema: the tool's parameters.
        as_it_is: whether the caller knows the vendor's form: the schema is then only checked for what it never takes.
    """
    if as_it_is:
        return schema if _within(schema, _OPENAI) and not _looks(schema) else None
    prepared = _convert(schema, _OPENAI)
    return prepared if prepared is not None and prepared == _convert(schema, _OPENAI_OPTIONAL) else None


def strict_anthropic_tool(schema: Schema, *, as_it_is: bool) -> Schema | None:
    """Return a tool's schema for Anthropic's strict mode, as ``strict_tool`` does."""
    if as_it_is:
        return schema if _within(schema, _ANTHROPIC) and not _looks(schema) else None
    return _convert(schema, _ANTHROPIC)


def without_nulls(answer: Any, schema: Schema) -> Any:  # noqa: ANN401 - any JSON
    """Return ``answer`` without nulls of optional properties, where ``schema`` does not allow null."""
    return _without_nulls(answer, [schema], schema)


def _convert(schema: Schema, subset: _Subset) -> Schema | None:
    try:
        root = {**_target(schema["$ref"], schema), **_definitions(schema)} if "$ref" in schema else schema
        prepared = _convert_part(root, subset)
        for place, named in _definitions(root).items():
            prepared[place] = {name: _convert_part(part, subset) for name, part in named.items()}
        for reference in _references(prepared):
            _target(reference, prepared)
    except (_UnsupportedError, RecursionError):
        return None
    return prepared if _within(prepared, subset) else None


def _within(schema: Schema, subset: _Subset) -> bool:
    """Whether a schema is within the vendor's limits."""
    if not subset.recursive and _recursive(schema):
        return False
    properties = values = 0
    level: list[Any] = [(schema, 0)]
    while level:
        part, depth = level.pop()
        if isinstance(part, list):
            level += [(item, depth) for item in part]
        elif isinstance(part, dict):
            inner = part.get("properties")
            if isinstance(inner, dict):
                depth += 1
                properties += len(inner)
            enum = part.get("enum")
            values += len(enum) if isinstance(enum, list) else 0
            level += [(below, depth) for below in _subschemas(part)]
        if depth > subset.max_depth or properties > subset.max_properties or values > subset.max_values:
            return False
    return True


def _subschemas(schema: Schema) -> Iterator[Any]:
    """Yield what may be schemas, or lists of them, directly below ``schema``."""
    for key, part in schema.items():
        if key in _MAPS:
            yield from part.values() if isinstance(part, dict) else ()
        elif key not in _DATA:
            yield part


def _looks(schema: Any) -> bool:  # noqa: ANN401 - any part of a schema
    """Whether a pattern of a schema looks around or back."""
    level = [schema]
    while level:
        part = level.pop()
        if isinstance(part, list):
            level += part
        elif isinstance(part, dict):
            pattern = part.get("pattern")
            if isinstance(pattern, str) and _LOOKING.search(pattern):
                return True
            level += _subschemas(part)
    return False


def _recursive(schema: Schema) -> bool:
    """Whether the schema or one of its definitions contains itself."""
    graph: dict[str, set[str]] = {"#": set(_texts(_references(_without_definitions(schema))))}
    for place, named in _definitions(schema).items():
        for name, part in named.items():
            graph[f"#/{place}/{name}"] = set(_texts(_references(part)))
    done: set[str] = set()
    while True:
        free = {node for node, below in graph.items() if node not in done and not (below & graph.keys()) - done}
        if not free:
            return len(done) < len(graph)
        done |= free


def _without_definitions(schema: Schema) -> Schema:
    return {key: part for key, part in schema.items() if key not in ("$defs", "definitions")}


def _texts(references: Iterator[Any]) -> Iterator[str]:
    return (reference for reference in references if isinstance(reference, str))


def _definitions(schema: Schema) -> Schema:
    return {place: schema[place] for place in ("$defs", "definitions") if isinstance(schema.get(place), dict)}


def _target(reference: Any, root: Schema) -> Schema:  # noqa: ANN401 - any JSON
    """Return the schema that a reference within ``root`` names."""
    found = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
    if found is None:
        raise _UnsupportedError
    target = root if found["place"] is None else root.get(found["place"], {}).get(found["name"])
    if not isinstance(target, dict):
        raise _UnsupportedError
    return target


def _references(schema: Any) -> Iterator[Any]:  # noqa: ANN401 - any part of a prepared schema
    if isinstance(schema, list):
        for part in schema:
            yield from _references(part)
    elif isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for key, part in schema.items():
            if key not in VALUES:
                yield from _references(part)


def _convert_part(schema: Any, subset: _Subset) -> Schema:  # noqa: ANN401 - any part of a schema
    if not isinstance(schema, dict) or schema.keys() & _UNSUPPORTED:
        raise _UnsupportedError
    schema = _merged(schema)
    if "$ref" in schema:
        return {"$ref": schema["$ref"]}
    named = {key: schema[key] for key in ("title", "description") if isinstance(schema.get(key), str)}
    branches = schema.get("anyOf", schema.get("oneOf"))
    if branches is not None:
        if not isinstance(branches, list) or not branches or {"anyOf", "oneOf"} <= schema.keys() or _typed(schema):
            raise _UnsupportedError
        return {**named, "anyOf": [_convert_part(branch, subset) for branch in branches]}
    if "enum" in schema or "const" in schema:
        return {**named, **_values(schema, subset)}
    kind = schema.get("type") or ("object" if "properties" in schema else "array" if "items" in schema else None)
    if isinstance(kind, list) and len(kind) > 1:
        return {**named, "anyOf": [_convert_part({**_without_names(schema), "type": each}, subset) for each in kind]}
    if isinstance(kind, list) and kind:
        kind = kind[0]
    if kind not in _BOUNDS:
        raise _UnsupportedError
    return _of_type(kind, schema, named, subset)


def _merged(schema: Schema) -> Schema:
    """Return the schema with the only part of an ``allOf`` merged into it."""
    if "allOf" not in schema:
        return schema
    parts = schema["allOf"]
    rest = {key: value for key, value in schema.items() if key != "allOf"}
    if not isinstance(parts, list) or len(parts) != 1 or not isinstance(parts[0], dict) or _typed(rest):
        raise _UnsupportedError
    part = _merged(parts[0])
    if part.keys() & _UNSUPPORTED:
        raise _UnsupportedError
    return {**part, **rest}


def _typed(schema: Schema) -> bool:
    return bool(schema.keys() & {"type", "properties", "items", "enum", "const"})


def _without_names(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key not in ("title", "description")}


def _values(schema: Schema, subset: _Subset) -> Schema:
    given: Schema = {key: schema[key] for key in VALUES if key in schema}
    values = [*given.get("enum", ()), *([given["const"]] if "const" in given else ())]
    if not values or not all(type(value) in _NAMES for value in values):
        raise _UnsupportedError
    if not subset.typed_values:
        return given
    kinds = sorted({_NAMES[type(value)] for value in values})
    return {"type": kinds[0] if len(kinds) == 1 else kinds, **given}


def _of_type(kind: str, schema: Schema, named: Schema, subset: _Subset) -> Schema:
    prepared: Schema = {**named, "type": kind}
    if kind == "object":
        prepared |= _object(schema, subset)
    elif kind == "array":
        prepared["items"] = _convert_part(schema.get("items"), subset)
    moved: Schema = {}
    for name in _BOUNDS[kind]:
        if name in schema:
            (prepared if _supported(name, schema[name], subset) else moved)[name] = schema[name]
    if moved:
        text = ", ".join(f"{name}: {value}" for name, value in moved.items())
        prepared["description"] = f"{named['description']}\n\n{{{text}}}" if "description" in named else f"{{{text}}}"
    return prepared


def _supported(name: str, value: Any, subset: _Subset) -> bool:  # noqa: ANN401 - any JSON
    if name == "format":
        return value in subset.formats
    if name == "pattern" and (not isinstance(value, str) or _LOOKING.search(value)):
        return False
    if name == "minItems" and subset.min_items is not None:
        return value in subset.min_items
    return name in subset.bounds


def _object(schema: Schema, subset: _Subset) -> Schema:
    properties, closed = schema.get("properties", {}), schema.get("additionalProperties")
    required = schema.get("required", [])
    if (
        not isinstance(properties, dict)
        or not isinstance(required, list)
        or set(required) - set(properties)
        or closed not in (None, False)
        or (closed is None and not properties)
    ):
        raise _UnsupportedError
    prepared = {name: _convert_part(part, subset) for name, part in properties.items()}
    if subset.all_required:
        prepared = {name: part if name in required else _or_null(part) for name, part in prepared.items()}
        required = list(properties)
    needed = {"required": required} if required or subset.all_required else {}
    return {"properties": prepared, **needed, "additionalProperties": False}


def _or_null(schema: Schema) -> Schema:
    if _takes_null([schema], {}):
        return schema
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    return {"anyOf": [schema, {"type": "null"}]}


def _alternatives(schemas: list[Any], root: Schema) -> list[Schema]:
    """Return ``schemas`` and all schemas that they combine or reference, each once."""
    found: dict[int, Schema] = {}
    left = list(schemas)
    while left:
        schema = left.pop()
        if not isinstance(schema, dict) or id(schema) in found:
            continue
        found[id(schema)] = schema
        for key in ("anyOf", "oneOf", "allOf"):
            left += schema[key] if isinstance(schema.get(key), list) else ()
        if "$ref" in schema:
            try:
                left.append(_target(schema["$ref"], root))
            except _UnsupportedError:
                continue
    return list(found.values())


def _takes_null(schemas: list[Any], root: Schema) -> bool:
    for schema in _alternatives(schemas, root):
        kind = schema.get("type")
        if "null" in (kind if isinstance(kind, list) else (kind,)) or None in schema.get("enum", ()):
            return True
        if "const" in schema and schema["const"] is None:
            return True
        if not schema.keys() & {"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"}:
            return True
    return False


def _without_nulls(value: Any, schemas: list[Any], root: Schema) -> Any:  # noqa: ANN401 - any JSON
    alternatives = _alternatives(schemas, root)
    if isinstance(value, list):
        items = [schema["items"] for schema in alternatives if "items" in schema]
        return [_without_nulls(item, items, root) for item in value] if items else value
    if not isinstance(value, dict):
        return value
    pruned = {}
    for name, item in value.items():
        parts = [part["properties"][name] for part in alternatives if name in part.get("properties", {})]
        required = any(name in schema.get("required", ()) for schema in alternatives)
        if item is None and parts and not required and not _takes_null(parts, root):
            continue
        pruned[name] = _without_nulls(item, parts, root) if parts else item
    return pruned
