"""Content in any form: texts, numbers, parts, and lists of them."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

from protocol.errors import ProviderError
from protocol.reading.loose import text_of

Kind = Literal["text", "reasoning", "refusal", ""]
Said = tuple[Kind, str] | dict[str, Any]

_TEXTS: Final = ("text", "value", "content", "parts")  # where a part has its text
_THOUGHTS: Final = ("thinking", "reasoning", "summary", *_TEXTS)
_ABOUT: Final = frozenset({"type", "index", "id"})  # says nothing by itself


def is_empty(value: Any) -> bool:  # noqa: ANN401 - any JSON
    """Whether ``value`` says nothing: null, false, 0, an empty text, or a list or an object of nothing else."""
    if isinstance(value, list):
        return all(map(is_empty, value))
    if isinstance(value, dict):
        return all(map(is_empty, value.values()))
    return not value


def said_in(value: Any, kind: Kind = "text") -> Iterator[Said]:  # noqa: ANN401 - any JSON
    """Yield the texts in ``value`` with their kinds, in order; a part of unknown type without text is yielded whole.

    Args:
        value: a text, a number, a part, or a list of them.
        kind: of a text that says no other kind.

    Raises:
        ProviderError: ``provider_bad_response``: it is none of these.
    """
    if isinstance(value, list):
        for item in value:
            yield from said_in(item, kind)
    elif isinstance(value, dict):
        yield from _part(value, kind)
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


def _part(value: dict[str, Any], kind: Kind) -> Iterator[Said]:
    named = text_of(value.get("type"))
    names: Sequence[str] = _TEXTS
    if named == "refusal":
        kind, names = "refusal", ("refusal", *_TEXTS)
    elif named.startswith(("thinking", "reasoning")):
        kind, names = "reasoning", _THOUGHTS
    inner = next((item for name in names if not is_empty(item := value.get(name))), None)
    if inner is not None:
        yield from said_in(inner, kind)
    elif kind != "reasoning" and not all(is_empty(item) for name, item in value.items() if name not in _ABOUT):
        if not named:
            raise ProviderError(code="provider_bad_response")
        yield value
