"""Content in any form: texts, numbers, parts, and lists of them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal

from protocol.errors import ProviderError
from protocol.reading.loose import text_of

Kind = Literal["text", "reasoning", "refusal", ""]
Said = tuple[Kind, str] | dict[str, Any]

_TEXTS: Final = ("text", "value", "content", "parts")  # where a part has its text
_THOUGHTS: Final = ("thinking", "reasoning", "summary", *_TEXTS)
MAX_SAID: Final = 1024  # texts and parts of one piece of a message
MAX_DEPTH: Final = 32  # values within values that are looked into
_ABOUT: Final = frozenset({"type", "index", "id"})  # says nothing by itself


def is_empty(value: Any, depth: int = MAX_DEPTH) -> bool:  # noqa: ANN401 - any JSON
    """Whether ``value`` says nothing: null, false, 0, an empty text, or a list or an object of nothing else.

    What is nested deeper than ``depth`` counts as something.
    """
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return not any(value) or (depth > 0 and all(is_empty(item, depth - 1) for item in value))
    return not value


def said_in(value: Any, kind: Kind = "text", depth: int = MAX_DEPTH) -> Iterator[Said]:  # noqa: ANN401 - any JSON
    """Yield the texts in ``value`` with their kinds, in order; a part of unknown type without text is yielded whole.

    Args:
        value: a text, a number, a part, or a list of them.
        kind: of a text that says no other kind.
        depth: how deep they may be within each other.

    Raises:
        ProviderError: ``provider_bad_response``: it is none of these, or nested too deep.
    """
    if depth < 0:
        raise ProviderError(code="provider_bad_response")
    if isinstance(value, list):
        for item in value:
            yield from said_in(item, kind, depth - 1)
    elif isinstance(value, dict):
        yield from _part(value, kind, depth)
    elif text := text_of(value):
        yield kind, text
    elif value:
        raise ProviderError(code="provider_bad_response")


def text_in(value: Any) -> str:  # noqa: ANN401 - any JSON
    """Return the text of ``value``, as ``said_in``.

    Raises:
        ProviderError: ``provider_bad_response``: it has something that is no text.
    """
    if isinstance(value, str):
        return value
    texts: list[str] = []
    for said in said_in(value):
        if isinstance(said, dict):
            raise ProviderError(code="provider_bad_response")
        texts.append(said[1])
    return "".join(texts)


def joined(said: Iterable[Said]) -> list[Said]:
    """Return what was said, where texts of one kind that follow each other are one.

    Raises:
        ProviderError: ``response_too_large``: there are more than ``MAX_SAID``.
    """
    found: list[Said] = []
    texts: list[str] = []
    kind: Kind = ""
    for item in said:
        if texts and (isinstance(item, dict) or item[0] != kind):
            found.append((kind, "".join(texts)))
            texts = []
        if isinstance(item, dict):
            found.append(item)
        else:
            kind = item[0]
            texts.append(item[1])
        if len(found) >= MAX_SAID:
            raise ProviderError(code="response_too_large")
    return [*found, (kind, "".join(texts))] if texts else found


def _part(value: dict[str, Any], kind: Kind, depth: int) -> Iterator[Said]:
    named = text_of(value.get("type"))
    names: Sequence[str] = _TEXTS
    if named == "refusal":
        kind, names = "refusal", ("refusal", *_TEXTS)
    elif named.startswith(("thinking", "reasoning")):
        kind, names = "reasoning", _THOUGHTS
    inner = next((item for name in names if not is_empty(item := value.get(name))), None)
    if inner is not None:
        yield from said_in(inner, kind, depth - 1)
    elif kind != "reasoning" and not all(is_empty(item) for name, item in value.items() if name not in _ABOUT):
        if not named:
            raise ProviderError(code="provider_bad_response")
        yield value
