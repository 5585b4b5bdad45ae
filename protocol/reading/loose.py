"""Loose JSON: reads what strict decoders refuse, and returns values that every encoder takes."""

import json
import math
from typing import Any, Final

import msgspec

from protocol.errors import ProviderError
from protocol.llm import Vendor

MAX_LABEL: Final = 512  # characters of an answer's id, and of its model
_MAX_DIGITS: Final = 400  # of an integer; a longer one is as good as infinite
_EVENT: Final = b"event: "  # no JSON begins so
_TRUNCATED: Final = "truncated"  # in msgspec's message
_AROUND_MARK: Final = b"\"'[] "
_LONGEST_MARK: Final = 12  # bytes of an end mark in any spelling
_LEAST, _MOST = -(2**63), 2**64 - 1  # integers that every encoder takes
_HIGH: Final = ("\ud800", "\udbff")

_check: Final = msgspec.json.Decoder(msgspec.Raw).decode


def named(data: bytes, name: str) -> bytes:
    """Return the data of a server-sent event with the event's name before it, which says more than the data."""
    return _EVENT + name.encode() + b"\n" + data


def split_name(data: bytes) -> tuple[str, bytes]:
    """Return an event's name, empty for none, and its data without blanks around it. An end mark is ``[DONE]``."""
    name = b""
    if data.startswith(_EVENT):
        name, _, data = data.removeprefix(_EVENT).partition(b"\n")
    data = data.strip()
    if len(data) <= _LONGEST_MARK and data.strip(_AROUND_MARK).upper() == b"DONE":
        data = b"[DONE]"
    return name.decode("utf-8", "replace"), data


def decode(data: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Decode JSON, also with a byte order mark, NaN, infinities, raw control characters and halves of surrogates.

    Bytes that are no UTF-8 are U+FFFD.

    Raises:
        ProviderError: ``provider_bad_response``: it is no JSON.
    """
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError):
        pass
    try:
        return json.loads(bytes(data).decode("utf-8-sig", "replace"), strict=False, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise ProviderError(code="provider_bad_response") from error


def is_cut(data: bytes) -> bool:
    """Return whether ``data`` is the beginning of JSON that breaks off."""
    try:
        _check(data)
    except msgspec.DecodeError as error:
        return _TRUNCATED in str(error)
    except RecursionError:
        return False
    return False


def clean(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return ``value`` as strict JSON has it: NaN, infinities and integers beyond 64 bits are null.

    Halves of surrogates are U+FFFD.
    """
    if isinstance(value, str):
        return whole_characters(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [clean(item) for item in value]
    if isinstance(value, dict):
        return {whole_characters(key): clean(item) for key, item in value.items()}
    return value if not isinstance(value, int) or _LEAST <= value <= _MOST else None


def encode(value: Any) -> bytes:  # noqa: ANN401 - any JSON
    """Encode what ``decode`` returned as strict JSON.

    Raises:
        ProviderError: ``provider_bad_response``: it is nested too deep.
    """
    try:
        return msgspec.json.encode(clean(value))
    except (RecursionError, OverflowError, msgspec.MsgspecError) as error:
        raise ProviderError(code="provider_bad_response") from error


def whole_characters(text: str) -> str:
    """Return ``text`` with its pairs of surrogates joined, and each half without the other replaced by U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def split_half(text: str) -> tuple[str, str]:
    """Return the whole characters of ``text``, and the half of a surrogate pair at its end: the other half may come."""
    if text and _HIGH[0] <= text[-1] <= _HIGH[1]:
        return whole_characters(text[:-1]), text[-1]
    return whole_characters(text), ""


def text_of(value: Any) -> str:  # noqa: ANN401 - any JSON
    """Return a string or a number as text; anything else is empty."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    return str(value)


def label_of(value: Any) -> str:  # noqa: ANN401 - any JSON
    """Return the id or the model of an answer, at most ``MAX_LABEL`` characters of it."""
    return whole_characters(text_of(value)[:MAX_LABEL])


def name_of(value: Any) -> str:  # noqa: ANN401 - any JSON
    """Return an id or a name, whole; empty for none, also where a proxy has written null as a text."""
    name = whole_characters(text_of(value))
    return "" if name in ("null", "None", "undefined") else name


def place_of(value: Any) -> int | None:  # noqa: ANN401 - any JSON
    """Return an index: an integer, also as a float or as text; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        value = value.strip()
        return int(value) if value.isascii() and value.isdigit() and len(value) < _MAX_DIGITS else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) else None


def json_text(value: Any) -> str:  # noqa: ANN401 - any JSON
    """Return the JSON text of arguments, which are a text of JSON already, or JSON; empty for null."""
    if value is None or isinstance(value, str):
        return value or ""
    return encode(value).decode()


def extra_of(dialect: Vendor, value: dict[str, Any], known: frozenset[str]) -> dict[Vendor, dict[str, Any]]:
    """Return the fields of ``value`` that are not in ``known`` and not null, as a part's ``extra``."""
    further = {key: item for key, item in value.items() if key not in known and item is not None}
    return {dialect: clean(further)} if further else {}


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < _MAX_DIGITS else math.inf
