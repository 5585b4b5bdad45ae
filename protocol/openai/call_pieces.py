"""Pieces of tool calls in any form: flat ones, functions as text, and calls of other kinds than functions."""

from typing import Any, Final

import msgspec

from protocol.errors import ProviderError
from protocol.llm import Extra
from protocol.reading.content import is_empty
from protocol.reading.loose import clean, decode, json_text, name_of, place_of

_KNOWN: Final = frozenset({"index", "id", "type", "function"})
_FUNCTION: Final = frozenset({"name", "arguments"})
_ARGUMENTS: Final = ("arguments", "parameters", "args", "input")
_FUNCTIONS: Final = ("", "function", "function_call", "tool_call", "tool_use")  # types of a function's call
_CUSTOM: Final = "custom"


class CallPiece(msgspec.Struct):
    """A piece of a call.

    Attributes:
        index: the upstream's; None where it has none.
        id: the upstream's; empty for none.
        name: the tool's; empty where an earlier piece has it.
        arguments: the next piece of them.
        extra: further fields of this dialect.
        kind: of a call that is no function's; empty for a function's.
        body: the piece of such a call, without its index, id and type.
    """

    index: int | None
    id: str
    name: str
    arguments: str = ""
    extra: Extra = {}
    kind: str = ""
    body: dict[str, Any] = {}

    @property
    def names_call(self) -> bool:
        """Whether the piece says which call it is of, so that it may begin one."""
        return bool(self.id or self.name or self.kind)


def piece_of(entry: Any) -> CallPiece | None:  # noqa: ANN401 - any JSON
    """Read a piece of a call; None for one that says nothing.

    Raises:
        ProviderError: ``provider_bad_response``: it has no form that is known.
    """
    if isinstance(entry, str) and entry.strip():
        entry = _object(entry)
    if is_empty(entry):
        return None
    if not isinstance(entry, dict):
        raise ProviderError(code="provider_bad_response")
    index, id_, kind = place_of(entry.get("index")), name_of(entry.get("id")), name_of(entry.get("type"))
    if not kind and isinstance(entry.get(_CUSTOM), dict) and is_empty(entry.get("function")):
        kind = _CUSTOM
    if kind not in _FUNCTIONS:
        return _other(entry, index, id_, kind)
    function = entry.get("function")
    if entry.keys() <= _KNOWN and isinstance(function, dict) and function.keys() <= _FUNCTION:
        return CallPiece(index, id_, name_of(function.get("name")), json_text(function.get("arguments")))
    return _loose(entry, function, index, id_)


def _loose(entry: dict[str, Any], function: Any, index: int | None, id_: str) -> CallPiece:  # noqa: ANN401
    """Read a function's call whose fields are within its function, or beside it."""
    if isinstance(function, str):
        text = function.strip()
        function = _object(text) if text.startswith("{") else {"name": text}
    elif is_empty(function):
        function = {}
    elif not isinstance(function, dict):
        raise ProviderError(code="provider_bad_response")
    within, arguments = _arguments_of(function)
    beside = ""
    if not within:
        beside, arguments = _arguments_of(entry)
    name = name_of(function.get("name"))
    flat = {"name", beside} if not name else {beside}
    extra = _further(entry, _KNOWN | flat)
    if further := _further(function, frozenset({"name", within})):
        extra["function"] = further
    name = name or name_of(entry.get("name"))
    return CallPiece(index, id_, name, json_text(arguments), {"openai": clean(extra)} if extra else {})


def _arguments_of(fields: dict[str, Any]) -> tuple[str, Any]:
    """Return the name of the field that has the arguments, empty for none, and the arguments."""
    return next(((name, fields[name]) for name in _ARGUMENTS if fields.get(name) is not None), ("", None))


def _further(fields: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in known and value is not None}


def _other(entry: dict[str, Any], index: int | None, id_: str, kind: str) -> CallPiece:
    """Read a call of another kind: its name is within its body, or the kind is its name."""
    body = entry.get(kind)
    name = name_of(body.get("name")) if isinstance(body, dict) else ""
    rest = {key: clean(value) for key, value in entry.items() if key not in ("index", "id", "type")}
    return CallPiece(index, id_, name, kind=kind, body=rest)


def _object(text: str) -> dict[str, Any]:
    """Return the object that a text is.

    Raises:
        ProviderError: ``provider_bad_response``: it is none.
    """
    value = decode(text.encode("utf-8", "surrogatepass"))
    if not isinstance(value, dict):
        raise ProviderError(code="provider_bad_response")
    return value
