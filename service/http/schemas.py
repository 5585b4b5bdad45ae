"""JSON Schemas of the structs in operations: from msgspec, with names and descriptions for a reader of the document."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, get_args

import msgspec

from protocol.websocket.commands import CLIENT_FRAMES
from service.http.anthropic_answers import AnthropicError
from service.http.docstrings import fields_of, opening_of
from service.http.openai_answers import OpenAIError
from service.http.operations import Operation
from service.middleware.errors import ProblemBody

SCHEMA: Final = "#/components/schemas/"
VENDORS: Final[Mapping[str, tuple[str, ...]]] = {
    "Chat": ("object", "string"),
    "Response": ("object",),
    "Message": ("object",),
    "Embedding": ("object",),
}
"""For each vendor's dialect the types of what else may stand among the parts of a message and the tools."""

Schema = dict[str, Any]


def schemas_of(operations: Sequence[Operation]) -> dict[str, Schema]:
    """Return the schemas of the structs of ``operations``, by name, with those of errors and of a socket's frames.

    Raises:
        ValueError: two schemas that differ have one name.
    """
    bodies: dict[str, list[type]] = {"": [], "Socket": list(CLIENT_FRAMES)}
    for operation in operations:
        if operation.body is not None:
            bodies.setdefault(operation.body.vendor, []).append(operation.body.kind)
    answers: list[type] = [ProblemBody, OpenAIError, AnthropicError]
    for operation in operations:
        for answer in operation.answers:
            answers += get_args(answer.kind) or ([answer.kind] if answer.kind is not None else [])
    found: dict[str, Schema] = {}
    for prefix, kinds in bodies.items():
        described = _components(kinds, prefix)
        _add(found, _opened(described, VENDORS[prefix]) if prefix in VENDORS else described)
    _add(found, _components(answers, "", whole=True))
    return dict(sorted(found.items()))


def _add(found: dict[str, Schema], more: Mapping[str, Schema]) -> None:
    for name, schema in more.items():
        if found.setdefault(name, schema) != schema:
            raise ValueError(f"two schemas that differ are called {name}")


def _components(kinds: Sequence[type], prefix: str, *, whole: bool = False) -> dict[str, Schema]:
    """Return the schemas of structs and of those within them.

    Args:
        kinds: the structs.
        prefix: goes before the names of private structs.
        whole: whether they are answers, in which a field with a default is always there.
    """
    infos = {info.cls: info for info in _structs(msgspec.inspect.multi_type_info(kinds))}
    references, schemas = msgspec.json.schema_components(list(infos), ref_template=SCHEMA + "{name}")
    given = {kind: reference["$ref"].removeprefix(SCHEMA) for kind, reference in zip(infos, references, strict=True)}
    names = {name: name_of(kind, prefix) for kind, name in given.items()}
    return {
        names[name]: _renamed(_described(schemas[name], kind, infos[kind], whole=whole), names)
        for kind, name in given.items()
    }


def _structs(infos: Iterable[Any]) -> list[Any]:
    """Return the information on every struct within ``infos``, each once."""
    found: dict[type, Any] = {}
    waiting = list(infos)
    while waiting:
        info = waiting.pop()
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in found:
                continue
            found[info.cls] = info
            waiting += [field.type for field in info.fields]
        elif isinstance(info, msgspec.inspect.UnionType):
            waiting += info.types
        elif isinstance(info, msgspec.inspect.Metadata):
            waiting.append(info.type)
        elif isinstance(info, msgspec.inspect.DictType):
            waiting.append(info.value_type)
        elif isinstance(info, msgspec.inspect.VarTupleType | msgspec.inspect.ListType):
            waiting.append(info.item_type)
    return sorted(found.values(), key=lambda info: (info.cls.__module__, info.cls.__name__))


def name_of(kind: type, prefix: str = "") -> str:
    """Return the name of a struct's schema: ``prefix`` goes before that of a private struct."""
    name = kind.__name__
    return prefix + name.lstrip("_") if name.startswith("_") else name


def _described(schema: Schema, kind: type, info: Any, *, whole: bool) -> Schema:  # noqa: ANN401 - a struct's information
    """Return the schema with what the docstring says of the struct and of each field."""
    texts = fields_of(kind)
    schema = {**schema, "description": opening_of(kind.__doc__)}
    schema.pop("title", None)
    properties = {name: dict(value) for name, value in schema["properties"].items()}
    required = list(schema.get("required", ()))
    for field in info.fields:
        wire = properties[field.encode_name]
        text = texts.get(field.name, "")
        if text:
            wire["description"] = _sentence(text)
        if whole and not _left_out(info, field) and field.encode_name not in required:
            required.append(field.encode_name)
        if whole or wire.get("default", "") is None:
            wire.pop("default", None)
    return {**schema, "properties": properties, "required": required}


def _left_out(info: Any, field: Any) -> bool:  # noqa: ANN401 - a struct's information
    """Whether the JSON may be without a field: one that is not set, or that has its default."""
    if field.required:
        return False
    if field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT:
        return True
    omits = info.cls.__struct_config__.omit_defaults
    return bool(omits and (field.default is not msgspec.NODEFAULT or field.default_factory in (tuple, dict, list)))


def _sentence(text: str) -> str:
    text = text.replace("``None``", "null").replace("None for", "null for").replace("``", "`")
    return text[:1].upper() + text[1:]


def _renamed(value: Any, names: Mapping[str, str]) -> Any:  # noqa: ANN401 - any JSON
    """Return JSON with the names of schemas replaced, and with the type of each enumeration and of items."""
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    if isinstance(value, str) and value.startswith(SCHEMA):
        return SCHEMA + names[value.removeprefix(SCHEMA)]
    if not isinstance(value, dict):
        return value
    renamed = {key: _renamed(item, names) for key, item in value.items()}
    if renamed.get("type") == "array":
        renamed.setdefault("items", {})
    if isinstance(renamed.get("enum"), list) and "type" not in renamed:
        kinds = {type(item) for item in renamed["enum"]}
        if kinds == {str}:
            renamed["type"] = "string"
        elif kinds == {int}:
            renamed["type"] = "integer"
    return renamed


def _opened(schemas: Mapping[str, Schema], others: Sequence[str]) -> dict[str, Schema]:
    """Return a vendor's schemas with unknown fields allowed, and with ``others`` among parts and tools."""
    tools = {SCHEMA + name for name, schema in schemas.items() if _has_default_kind(schema)}

    def opened(value: Any) -> Any:  # noqa: ANN401 - any JSON
        if isinstance(value, list):
            return list(map(opened, value))
        if not isinstance(value, dict):
            return value
        changed = {key: opened(item) for key, item in value.items() if (key, item) != ("additionalProperties", False)}
        if "discriminator" in changed:
            del changed["discriminator"]
            changed["anyOf"] = [*changed["anyOf"], *({"type": other} for other in others)]
        if changed.get("$ref") in tools:
            return {"anyOf": [changed, {"type": "object"}]}
        return changed

    return {name: opened(schema) for name, schema in schemas.items()}


def _has_default_kind(schema: Schema) -> bool:
    """Whether a schema is of a tool or a call, of which a vendor has kinds of its own."""
    return "type" in schema["properties"] and "type" not in schema["required"]
