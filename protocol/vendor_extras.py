"""Vendor extras: fields of a part or a tool that only upstreams of one dialect get."""

from collections.abc import Iterable

import msgspec

from protocol.llm import Extra, Vendor


def extras_of(wire: msgspec.Struct, dialect: Vendor, names: Iterable[str]) -> Extra:
    """Return the fields ``names`` that ``wire`` has, as extras of ``dialect``."""
    extras = {name: value for name in names if (value := getattr(wire, name)) is not None}
    return {dialect: extras} if extras else {}
