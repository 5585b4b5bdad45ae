"""What a vendor's clients write beside a part or a tool for that vendor alone, as it is kept."""

from collections.abc import Iterable

import msgspec

from protocol.llm import Extra, Vendor


def extras_of(wire: msgspec.Struct, dialect: Vendor, names: Iterable[str]) -> Extra:
    """Return those of the fields ``names`` that ``wire`` has, as fields of ``dialect``."""
    marks = {name: value for name in names if (value := getattr(wire, name)) is not None}
    return {dialect: marks} if marks else {}
