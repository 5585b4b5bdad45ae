"""Vendor extras: fields of a message, a part or a tool that only upstreams of one dialect get."""

from collections.abc import Container, Iterable, Mapping
from typing import Any, Final

import msgspec

from protocol.llm import Extra, Tool, Vendor

ORDINARY_TOOLS: Final[dict[Vendor, str]] = {"openai": "function", "anthropic": "custom"}


def extras_of(wire: msgspec.Struct, dialect: Vendor, names: Iterable[str]) -> Extra:
    """Return the fields ``names`` that ``wire`` has, as extras of ``dialect``."""
    return as_extra({name: value for name in names if (value := getattr(wire, name)) is not None}, dialect)


def as_extra(fields: dict[str, Any], dialect: Vendor) -> Extra:
    """Return ``fields`` as extras of ``dialect``."""
    return {dialect: fields} if fields else {}


def unknown_fields(fields: Mapping[str, Any], known: Container[str]) -> dict[str, Any]:
    """Return the fields that are not in ``known``; null counts as absent."""
    return {name: value for name, value in fields.items() if name not in known and value is not None}


def vendor_of(tool: Tool) -> Vendor | None:
    """Return the dialect of a tool that only its vendor has, such as a hosted search; None for a function.

    The extras of such a tool are the whole tool.
    """
    for dialect, fields in tool.extra.items():
        kind = fields.get("type")
        if isinstance(kind, str) and kind != ORDINARY_TOOLS[dialect]:
            return dialect
    return None
