"""JSON of long texts, a piece at a time: one call for a whole text holds the interpreter's lock for too long."""

from typing import Any, Final

import msgspec

PIECE: Final = 1024 * 1024  # characters

_json: Final = msgspec.json.Encoder().encode


def encode_in_pieces(value: Any) -> bytes:  # noqa: ANN401 - JSON
    """Return the JSON of ``value``, the same as in one call; for a thread, beside which others get their turns."""
    return _json(_encoded(value))


def _encoded(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return ``value`` with its long texts in JSON already."""
    if isinstance(value, str) and len(value) > PIECE:
        pieces = [_json(value[at : at + PIECE])[1:-1] for at in range(0, len(value), PIECE)]
        return msgspec.Raw(b"".join([b'"', *pieces, b'"']))
    if isinstance(value, dict):
        return {name: _encoded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encoded(item) for item in value]
    return value
