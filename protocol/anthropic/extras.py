"""Fields of an answer, and of its usage, that only Anthropic's dialect has, such as its container."""

from collections.abc import Set as AbstractSet
from typing import Any, Final

from protocol.llm import Extra
from protocol.reading.claims import COUNTS
from protocol.reading.loose import clean, encode

MAX_BYTES: Final = 64 * 1024  # of JSON, of all fields together
USAGE: Final = "usage"
BESIDE: Final = frozenset({"context_management"})  # stand beside the ``delta`` of a ``message_delta``
_MESSAGE: Final = frozenset(
    {
        "amazon-bedrock-invocationMetrics",
        "content",
        "delta",
        "error",
        "id",
        "model",
        "role",
        "stop_reason",
        "stop_sequence",
        "type",
        "usage",
    }
)  # of a message, a ``message_delta`` and its delta


class AnswerFields:
    """Collects these fields, wherever they come. A later value replaces an earlier one; null is absent.

    Fields beyond ``MAX_BYTES`` are dropped.

    Attributes:
        extra: the fields, as in ``events.Completed``; those of the usage are under ``usage``.
    """

    __slots__ = ("_size", "extra")

    def __init__(self) -> None:
        self.extra: Extra = {}
        self._size = 0

    def add(self, message: dict[str, Any]) -> None:
        """Add those of a message, of a ``message_delta``, or of its delta."""
        fields = self._new(message, _MESSAGE)
        if fields:
            self.extra.setdefault("anthropic", {}).update(fields)

    def add_usage(self, usage: dict[str, Any]) -> None:
        """Add those of a usage."""
        fields = self._new(usage, COUNTS)
        if fields:
            self.extra.setdefault("anthropic", {}).setdefault(USAGE, {}).update(fields)

    def _new(self, given: dict[str, Any], known: AbstractSet[str]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for name, value in given.items():
            if name in known or value is None:
                continue
            self._size += len(name) + len(encode(value))
            if self._size <= MAX_BYTES:
                fields.update(clean({name: value}))
        return fields


def of_usage(extra: Extra) -> dict[str, Any]:
    """Return the fields of the usage."""
    usage: dict[str, Any] = extra.get("anthropic", {}).get(USAGE, {})
    return usage


def of_message(extra: Extra) -> dict[str, Any]:
    """Return the fields of the message, which in a stream are those of a ``message_delta``."""
    return {name: value for name, value in extra.get("anthropic", {}).items() if name != USAGE}
