"""Fields of a message that only some upstreams of OpenAI's dialect have: they come back joined, and bounded."""

from collections.abc import Iterable
from typing import Any, Final

from protocol.errors import ProviderError
from protocol.reading.content import is_empty
from protocol.reading.loose import encode

MAX_KEPT_BYTES: Final = 4 * 1024 * 1024  # of all fields together
LEAST_BYTES: Final = 64  # what a piece counts at least
MAX_FIELDS: Final = 1024  # names: each becomes a part of its own
LAST: Final = ("annotations", "citations", "search_results")  # of these the last value counts

_GROWING: Final = ("text", "summary", "data", "thinking")  # of an entry of a list that comes in pieces
_FIXED: Final = frozenset({"id", "type", "name", "role", "signature", "format", "mime_type", "url", "status", "model"})
_TEXTS: Final = ("thinking", "thought", "thoughts", "input")  # of which equal pieces are pieces


class VendorFields:
    """Collects the fields of one message until its end, and details of the reasoning until the end of a part.

    Texts that come in pieces are joined, lists are joined, and entries of a list that come in pieces are one entry.
    """

    __slots__ = ("_bytes", "_details", "_last", "_pieces", "given")

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}  # fields that are given on at once, so that they are not repeated
        self._bytes = 0
        self._details: list[Any] = []
        self._last: dict[str, Any] = {}
        self._pieces: dict[str, list[Any]] = {}

    @property
    def has_details(self) -> bool:
        """Whether details of the reasoning wait for the end of their part."""
        return bool(self._details)

    def keep_last(self, value: dict[str, Any]) -> None:
        """Keep the fields of ``LAST`` that ``value`` has: only the last value counts."""
        for name in LAST:
            if kept := value.get(name):
                self.bound(kept)
                self._last[name] = kept

    def add(self, fields: dict[str, Any], *, whole: bool) -> None:
        """Add fields; ``whole`` says whether they are all that there is, and not the next pieces."""
        for name, value in fields.items():
            self.bound(value)
            if whole:
                self._pieces[name] = [value]
            else:
                self._pieces.setdefault(name, []).append(value)
        if len(self._pieces) > MAX_FIELDS:
            raise ProviderError(code="response_too_large")

    def add_details(self, details: list[Any]) -> None:
        """Add details of the reasoning."""
        for detail in details:
            if isinstance(detail, dict):
                self.bound(detail)
                self._details.append(detail)

    def take_details(self) -> list[Any]:
        """Return the details so far, and forget them."""
        details, self._details = self._details, []
        self.given.setdefault("reasoning_details", True)
        return _joined(details)

    def take(self) -> Iterable[tuple[str, Any]]:
        """Return all fields with their names, at the end of the message, and forget them."""
        last, pieces = self._last, self._pieces
        self._last, self._pieces = {}, {}
        return [*last.items(), *((name, folded(values, name)) for name, values in pieces.items())]

    def bound(self, value: Any) -> None:  # noqa: ANN401 - any JSON
        """Count a value.

        Raises:
            ProviderError: ``response_too_large``.
        """
        self._bytes += max(LEAST_BYTES, len(encode(value)))
        if self._bytes > MAX_KEPT_BYTES:
            raise ProviderError(code="response_too_large")


def folded(values: list[Any], name: str = "") -> Any:  # noqa: ANN401 - any JSON
    """Return what the pieces of one field say together.

    Texts and lists are joined, and objects field by field. Of anything else, of names, and of texts that are all the
    same, the last one counts. A last piece that repeats all others adds nothing.
    """
    if len(values) == 1:
        return values[0]
    if all(isinstance(value, dict) for value in values):
        return {key: folded(_said(found), key) for key, found in _by_key(values).items()}
    if all(isinstance(value, list) for value in values):
        items: list[Any] = []
        for value in values:
            items += [] if value == items else value
        return _joined(items)
    if not all(isinstance(value, str) for value in values) or name in _FIXED:
        return values[-1]
    if name not in _TEXTS and len(set(values)) == 1:
        return values[-1]
    *pieces, last = values
    text = "".join(pieces)
    return text if text == last and len(pieces) > 1 else text + last


def _by_key(pieces: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the values of all pieces, by their keys, in order."""
    found: dict[str, list[Any]] = {}
    for piece in pieces:
        for key, value in piece.items():
            found.setdefault(key, []).append(value)
    return found


def _said(found: list[Any]) -> list[Any]:
    return [value for value in found if not is_empty(value)] or found[-1:]


def _joined(items: list[Any]) -> list[Any]:
    """Return the entries of a list, where those that are pieces of one are one."""
    rows: list[list[Any]] = []
    for item in items:
        if rows and _goes_on(rows[-1], item):
            rows[-1].append(item)
        else:
            rows.append([item])
    return [row[0] if len(row) == 1 else _one(row) for row in rows]


def _goes_on(row: list[Any], item: Any) -> bool:  # noqa: ANN401 - any JSON
    """Whether an entry is the next piece of the last one: of its type and index, or of a thought that is not signed.

    A signed piece is the last one of its row.
    """
    last = row[-1]
    if not isinstance(last, dict) or not isinstance(item, dict):
        return False
    if any(last.get(key) != item.get(key) for key in ("type", "index")):
        return False
    if "index" in item:
        return "image_url" not in item
    return item.get("type") == "thinking" and not last.get("signature")


def _one(row: list[dict[str, Any]]) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    for key, values in _by_key(row).items():
        found = [value for value in values if value is not None]
        grows = key in _GROWING and all(isinstance(value, str) for value in found)
        entry[key] = "".join(found) if grows else (found[-1] if found else None)
    return entry
