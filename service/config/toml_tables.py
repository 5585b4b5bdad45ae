"""Checks the tables of the routes' file against the structs that they become, and finds every fault."""

import types
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import msgspec

from protocol.errors import FieldError
from protocol.limits import ENDPOINT_PATTERN
from protocol.nearest import nearest
from service.auth.keys import TENANT_PATTERN
from service.config.wording import masked, one_of

PATTERNS: Final = {
    "^(https?://.+)?$": "should be an address that begins with http:// or https://",
    "^(?:[0-9a-f]{64})?$": "should be the 64 hex digits that `tidegate key create` prints",
    ENDPOINT_PATTERN: "should be 1 to 128 characters without blanks, quotes and backslashes, such as `chat` or `/v1/*`",
    TENANT_PATTERN: "should be 1 to 128 letters, digits and . _ : @ / -, the first one a letter or a digit",
}
KINDS: Final = {
    "`array`": "a list",
    "`bool`": "true or false",
    "`decimal`": "a number",
    "`float`": "a number",
    "`int`": "a whole number",
    "`object`": "a table",
    "`str`": "a text",
    "`str | object`": "a text or a table",
}


def table_faults(value: object, kind: Any, path: str) -> Iterator[FieldError]:  # noqa: ANN401 - any annotation
    """Find what keeps ``value`` from becoming a ``kind``: each fault with its path, and no value of a text."""
    bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    structs = [part for part in (bare, *_union(bare)) if _is_struct(part)]
    if isinstance(value, dict) and structs:
        yield from _struct_faults(value, structs[0], path)
        return
    if isinstance(value, list) and get_origin(bare) is tuple:
        item = get_args(bare)[0]
        inside = [fault for place, part in enumerate(value) for fault in table_faults(part, item, f"{path}[{place}]")]
        if inside:
            yield from inside
            return
    choices = _choices(bare)
    if choices and value not in choices:
        text = value if isinstance(value, str) else ""
        yield FieldError(path, f"should be {one_of(choices)}{nearest(text, choices)}")
        return
    yield from _converted(value, kind, path)


def _struct_faults(value: dict[str, Any], kind: Any, path: str) -> Iterator[FieldError]:  # noqa: ANN401 - a struct
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    found: list[FieldError] = []
    for name in value.keys() - fields.keys():
        hint = nearest(name, fields) or f"; there are: {', '.join(fields)}"
        found.append(FieldError(masked(f"{path}.{name}"), f"there is no such key{hint}"))
    for name, field in fields.items():
        if name in value:
            found += table_faults(value[name], field.type, f"{path}.{name}")
        elif field.required:
            found.append(FieldError(f"{path}.{name}", "it is missing"))
    yield from sorted(found, key=lambda fault: fault.path) or _converted(value, kind, path)


def _converted(value: object, kind: Any, path: str) -> Iterator[FieldError]:  # noqa: ANN401 - any annotation
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        reason, _, inside = str(error).partition(" - at `$")
        yield FieldError(masked(path + inside.rstrip("`")), masked(_words(reason)))


def _words(reason: str) -> str:
    for pattern, words in PATTERNS.items():
        if repr(pattern) in reason or pattern in reason:
            return words
    reason = reason.replace(" | null", "").replace("Expected ", "should be ", 1)
    for kind, words in KINDS.items():
        reason = reason.replace(kind, words)
    return reason


def _union(kind: Any) -> tuple[Any, ...]:  # noqa: ANN401 - any annotation
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else ()


def _choices(kind: Any) -> tuple[str, ...]:  # noqa: ANN401 - any annotation
    return get_args(kind) if get_origin(kind) is Literal else ()


def _is_struct(kind: Any) -> bool:  # noqa: ANN401 - any annotation
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)
