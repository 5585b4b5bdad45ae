"""A caller's JSON Schema in the form that a vendor holds its model to, where there is one.

What a vendor does not know is left out, and said in the description instead: the answer is validated against the
caller's own schema anyway. Where leaving out would not do, as for an object whose keys nobody has named, there is none.
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
_BEYOND: Final = frozenset(
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
_REFERENCE: Final = re.compile(r"#(?:/(?P<place>\$defs|definitions)/(?P<name>[^/]+))?")


class _Form(msgspec.Struct, frozen=True, kw_only=True):
    """What a vendor takes.

    Attributes:
        bounds: the keywords that it knows.
        formats: the formats of strings that it knows.
        min_items: the only values of ``minItems``; None for any.
        all_required: whether every property has to be there; an optional one may then be null.
        typed_values: whether ``enum`` and ``const`` need a type beside them, rather than must not have one.
    """

    bounds: frozenset[str]
    formats: frozenset[str]
    min_items: tuple[int, ...] | None
    all_required: bool
    typed_values: bool


_OPENAI: Final = _Form(
    bounds=frozenset({*_NUMERIC, "pattern", "format", "minItems", "maxItems"}),
    formats=frozenset(_FORMATS),
    min_items=None,
    all_required=True,
    typed_values=True,
)
_ANTHROPIC: Final = _Form(
    bounds=frozenset({"format", "minItems"}),
    formats=frozenset({*_FORMATS, "uri"}),
    min_items=(0, 1),
    all_required=False,
    typed_values=False,
)


class _UnfitError(Exception):
    """There is no such form."""


def openai_schema(schema: Schema) -> Schema | None:
    """Return ``schema`` for OpenAI's strict mode; None where it does not fit.

    Every object is closed and has all its properties; one that was optional may be null: see :func:`without_nulls`.
    """
    prepared = _whole(schema, _OPENAI)
    return prepared if prepared is not None and prepared.get("type") == "object" else None


def anthropic_schema(schema: Schema) -> Schema | None:
    """Return ``schema`` for Anthropic's structured output; None where it does not fit."""
    return _whole(schema, _ANTHROPIC)


def without_nulls(answer: Any, schema: Schema) -> Any:  # noqa: ANN401 - any JSON
    """Return ``answer`` without the nulls that stand for optional properties, where ``schema`` takes none there."""
    return _pruned(answer, [schema], schema)


def _whole(schema: Schema, form: _Form) -> Schema | None:
    try:
        root = {**_target(schema["$ref"], schema), **_definitions(schema)} if "$ref" in schema else schema
        prepared = _prepared(root, form)
        for place, named in _definitions(root).items():
            prepared[place] = {name: _prepared(part, form) for name, part in named.items()}
        for reference in _references(prepared):
            _target(reference, prepared)
    except (_UnfitError, RecursionError):
        return None
    return prepared


def _definitions(schema: Schema) -> Schema:
    return {place: schema[place] for place in ("$defs", "definitions") if isinstance(schema.get(place), dict)}


def _target(reference: Any, root: Schema) -> Schema:  # noqa: ANN401 - any JSON
    """Return what a reference within ``root`` stands for."""
    found = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
    if found is None:
        raise _UnfitError
    target = root if found["place"] is None else root.get(found["place"], {}).get(found["name"])
    if not isinstance(target, dict):
        raise _UnfitError
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


def _prepared(schema: Any, form: _Form) -> Schema:  # noqa: ANN401 - any part of a schema
    if not isinstance(schema, dict) or schema.keys() & _BEYOND:
        raise _UnfitError
    schema = _merged(schema)
    if "$ref" in schema:
        return {"$ref": schema["$ref"]}
    named = {key: schema[key] for key in ("title", "description") if isinstance(schema.get(key), str)}
    branches = schema.get("anyOf", schema.get("oneOf"))
    if branches is not None:
        if not isinstance(branches, list) or not branches or {"anyOf", "oneOf"} <= schema.keys() or _typed(schema):
            raise _UnfitError
        return {**named, "anyOf": [_prepared(branch, form) for branch in branches]}
    if "enum" in schema or "const" in schema:
        return {**named, **_values(schema, form)}
    kind = schema.get("type") or ("object" if "properties" in schema else "array" if "items" in schema else None)
    if isinstance(kind, list) and len(kind) > 1:
        return {**named, "anyOf": [_prepared({**_unnamed(schema), "type": each}, form) for each in kind]}
    if isinstance(kind, list) and kind:
        kind = kind[0]
    if kind not in _BOUNDS:
        raise _UnfitError
    return _of_type(kind, schema, named, form)


def _merged(schema: Schema) -> Schema:
    """Return the schema with the only part of an ``allOf`` in its place."""
    if "allOf" not in schema:
        return schema
    parts = schema["allOf"]
    rest = {key: value for key, value in schema.items() if key != "allOf"}
    if not isinstance(parts, list) or len(parts) != 1 or not isinstance(parts[0], dict) or _typed(rest):
        raise _UnfitError
    part = _merged(parts[0])
    if part.keys() & _BEYOND:
        raise _UnfitError
    return {**part, **rest}


def _typed(schema: Schema) -> bool:
    return bool(schema.keys() & {"type", "properties", "items", "enum", "const"})


def _unnamed(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key not in ("title", "description")}


def _values(schema: Schema, form: _Form) -> Schema:
    given: Schema = {key: schema[key] for key in VALUES if key in schema}
    values = [*given.get("enum", ()), *([given["const"]] if "const" in given else ())]
    if not values or not all(type(value) in _NAMES for value in values):
        raise _UnfitError
    if not form.typed_values:
        return given
    kinds = sorted({_NAMES[type(value)] for value in values})
    return {"type": kinds[0] if len(kinds) == 1 else kinds, **given}


def _of_type(kind: str, schema: Schema, named: Schema, form: _Form) -> Schema:
    prepared: Schema = {**named, "type": kind}
    if kind == "object":
        prepared |= _object(schema, form)
    elif kind == "array":
        prepared["items"] = _prepared(schema.get("items"), form)
    untold: Schema = {}
    for name in _BOUNDS[kind]:
        if name in schema:
            (prepared if _known(name, schema[name], form) else untold)[name] = schema[name]
    if untold:
        said = ", ".join(f"{name}: {value}" for name, value in untold.items())
        prepared["description"] = f"{named['description']}\n\n{{{said}}}" if "description" in named else f"{{{said}}}"
    return prepared


def _known(name: str, value: Any, form: _Form) -> bool:  # noqa: ANN401 - any JSON
    if name == "format":
        return value in form.formats
    if name == "minItems" and form.min_items is not None:
        return value in form.min_items
    return name in form.bounds


def _object(schema: Schema, form: _Form) -> Schema:
    properties, closed = schema.get("properties", {}), schema.get("additionalProperties")
    required = schema.get("required", [])
    if (
        not isinstance(properties, dict)
        or not isinstance(required, list)
        or set(required) - set(properties)
        or closed not in (None, False)
        or (closed is None and not properties)
    ):
        raise _UnfitError
    prepared = {name: _prepared(part, form) for name, part in properties.items()}
    if form.all_required:
        prepared = {name: part if name in required else _or_null(part) for name, part in prepared.items()}
        required = list(properties)
    needed = {"required": required} if required or form.all_required else {}
    return {"properties": prepared, **needed, "additionalProperties": False}


def _or_null(schema: Schema) -> Schema:
    if _takes_null([schema], {}):
        return schema
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    return {"anyOf": [schema, {"type": "null"}]}


def _alternatives(schemas: list[Any], root: Schema) -> list[Schema]:
    """Return the schemas that those of ``schemas`` are made of, each once."""
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
            except _UnfitError:
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


def _pruned(value: Any, schemas: list[Any], root: Schema) -> Any:  # noqa: ANN401 - any JSON
    alternatives = _alternatives(schemas, root)
    if isinstance(value, list):
        items = [schema["items"] for schema in alternatives if "items" in schema]
        return [_pruned(item, items, root) for item in value] if items else value
    if not isinstance(value, dict):
        return value
    pruned = {}
    for name, item in value.items():
        parts = [part["properties"][name] for part in alternatives if name in part.get("properties", {})]
        required = any(name in schema.get("required", ()) for schema in alternatives)
        if item is None and parts and not required and not _takes_null(parts, root):
            continue
        pruned[name] = _pruned(item, parts, root) if parts else item
    return pruned
