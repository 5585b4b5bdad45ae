"""What a refused JSON value may be instead: the allowed values of an enum, and the place of a misplaced field."""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Final

from msgspec import inspect

from protocol.nearest import nearest

MAX_DEPTH: Final = 32  # steps of a path that are followed

_ENUM: Final = "Invalid enum value"
_UNKNOWN: Final = re.compile(r"contains unknown field `(?P<name>[^`]*)`")
_STEP: Final = re.compile(r"\.(?P<field>\w+)|\[[^\]]*\]")


def hint(reason: str, path: str, kind: Any) -> str:  # noqa: ANN401 - any type that msgspec decodes
    """Return the end of a sentence about a refused value, beginning with ``;``; empty where there is nothing to say.

    Args:
        reason: the text of a ``msgspec.ValidationError``, without the path.
        path: the path that the text has.
        kind: the type that was decoded.
    """
    unknown = _UNKNOWN.search(reason)
    if unknown is None and not reason.startswith(_ENUM):
        return ""
    found = list(_at(path, _type_info(kind)))
    if unknown is None:
        return _allowed(found)
    return _place(unknown["name"], [node for node in found if isinstance(node, inspect.StructType)])


@lru_cache(maxsize=64)
def _type_info(kind: Any) -> inspect.Type:  # noqa: ANN401 - as above
    return inspect.type_info(kind)


def _allowed(nodes: Iterable[inspect.Type]) -> str:
    values: dict[object, None] = {}
    for node in nodes:
        if isinstance(node, inspect.LiteralType):
            values.update(dict.fromkeys(node.values))
        elif isinstance(node, inspect.EnumType):
            values.update(dict.fromkeys(member.value for member in node.cls))
    *others, last = [f"{value!r}" for value in values] or [""]
    return f"; allowed: {', '.join(others)} or {last}" if others else f"; allowed: {last}" if last else ""


def _place(name: str, structs: Iterable[inspect.StructType]) -> str:
    """Return the field of an inner object that has this name, else the field whose name is nearest."""
    known: list[str] = []
    for struct in structs:
        for field in struct.fields:
            known.append(field.encode_name)
            for inner in _plain(field.type):
                if isinstance(inner, inspect.StructType) and any(name == part.encode_name for part in inner.fields):
                    return f"; did you mean `{field.encode_name}.{name}`?"
    return nearest(name, known)


def _at(path: str, node: inspect.Type) -> Iterable[inspect.Type]:
    nodes = list(_plain(node))
    for _, step in zip(range(MAX_DEPTH), _STEP.finditer(path), strict=False):
        nodes = [plain for node in nodes for inner in _inside(node, step["field"]) for plain in _plain(inner)]
    return nodes


def _inside(node: inspect.Type, name: str | None) -> Iterator[inspect.Type]:
    if isinstance(node, inspect.StructType):
        yield from (field.type for field in node.fields if field.encode_name == name)
    elif name is None and isinstance(node, inspect.CollectionType):
        yield node.item_type
    elif name is None and isinstance(node, inspect.DictType):
        yield node.value_type


def _plain(node: inspect.Type) -> Iterator[inspect.Type]:
    """Give the types of a union, without the descriptions around them."""
    if isinstance(node, inspect.Metadata):
        yield from _plain(node.type)
    elif isinstance(node, inspect.UnionType):
        for part in node.types:
            yield from _plain(part)
    else:
        yield node
