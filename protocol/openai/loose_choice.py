"""What a choice says, wherever upstreams put it: read from any JSON."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from protocol.errors import ProviderError
from protocol.openai.vendor_fields import LAST
from protocol.reading.content import Kind, Said, is_empty, joined, said_in
from protocol.reading.loose import decode, place_of

_CONTENT: Final = ("content", "text", "output_text")
_THOUGHTS: Final = ("reasoning_content", "reasoning")
_CALLS: Final = ("tool_calls", "tool_call")
_READ: Final = frozenset(
    {"role", "type", "refusal", "reasoning_details", "function_call", "extra_content", *_CONTENT, *_THOUGHTS, *_CALLS}
).union(LAST)


class LooseDelta(msgspec.Struct):
    """What a choice says.

    Attributes:
        whole: whether it is a whole message, and not its next pieces.
        thoughts: the reasoning.
        details: details of the reasoning.
        refusals: of the model's.
        legacy: a call in its old form.
        content: texts with their kinds, and parts of types that are not known.
        calls: pieces of tool calls.
        last: fields of which the last value counts.
        extra_content: a vendor's own about what comes before.
        fields: all other fields that say something.
    """

    whole: bool
    thoughts: list[Said]
    details: list[Any]
    refusals: list[Said]
    legacy: list[Any]
    content: list[Said]
    calls: list[Any]
    last: dict[str, Any]
    extra_content: dict[str, Any]
    fields: dict[str, Any]

    def leave_out(self, kind: Kind) -> None:
        """Leave out all texts of a kind."""
        self.thoughts = [said for said in self.thoughts if _kind(said) != kind]
        self.refusals = [said for said in self.refusals if _kind(said) != kind]
        self.content = [said for said in self.content if _kind(said) != kind]

    def text(self) -> str:
        """Return the text of the content."""
        return "".join([said[1] for said in self.content if not isinstance(said, dict) and said[0] == "text"])


def first_choices(value: dict[str, Any], *, failed: bool) -> Iterator[dict[str, Any]]:
    """Yield what belongs to the first choice. A choice without an index has its place in the list as index.

    Args:
        value: the chunk. One without choices may be a choice itself.
        failed: whether it reports a failure, so that its texts may be the failure's.

    Raises:
        ProviderError: ``provider_bad_response``: the choices are no list of objects.
    """
    choices = value.get("choices")
    if choices is None:
        if not failed and any(_speaks(value.get(name)) for name in ("delta", "message", *_CONTENT, *_CALLS)):
            yield value
        return
    if not isinstance(choices, list):
        raise ProviderError(code="provider_bad_response")
    taken = False
    for place, choice in enumerate(choices):
        if not isinstance(choice, dict):
            if choice:
                raise ProviderError(code="provider_bad_response")
            continue
        index = place_of(choice.get("index"))
        if (place if index is None else index) == 0 and not taken:
            taken = not is_empty(choice.get("message"))
            yield choice


def delta_of(choice: dict[str, Any]) -> LooseDelta:
    """Return what a choice says.

    Raises:
        ProviderError: ``provider_bad_response``: it says something in a form that is not known.
    """
    fields, whole = _fields_of(choice)
    thoughts = next((item for name in _THOUGHTS if (item := joined(said_in(fields.get(name), "reasoning")))), [])
    details = fields.get("reasoning_details")
    details = details if isinstance(details, list) else []
    if details and not any(fields.get(name) for name in _THOUGHTS):
        thoughts = joined(said for said in said_in(details, "reasoning") if not isinstance(said, dict))
    refusals = joined(said_in(fields.get("refusal"), "refusal"))
    if any(isinstance(said, dict) for said in refusals):
        raise ProviderError(code="provider_bad_response")
    content = next((item for name in _CONTENT if (item := joined(said_in(fields.get(name))))), [])
    extra_content = fields.get("extra_content")
    calls = [*_calls_of(next((fields[name] for name in _CALLS if not is_empty(fields.get(name))), []))]
    return LooseDelta(
        whole=whole,
        thoughts=thoughts,
        details=details,
        refusals=refusals,
        legacy=[] if calls else [*_legacy(fields.get("function_call"))],
        content=content,
        calls=calls,
        last={name: fields[name] for name in LAST if fields.get(name)},
        extra_content=extra_content if isinstance(extra_content, dict) else {},
        fields=dict(_further(fields, told=bool(thoughts))),
    )


def _further(fields: dict[str, Any], *, told: bool) -> Iterable[tuple[str, Any]]:
    """Yield the other fields that say something; ``told`` says whether the reasoning has been read."""
    for name, value in fields.items():
        if name not in _READ:
            if not is_empty(value):
                yield name, value
        elif isinstance(value, dict) and name in _THOUGHTS and not told and not is_empty(value):
            yield name, value


def _fields_of(choice: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the delta or the message of a choice, and whether it is a message; the choice itself where it has none."""
    for name in ("delta", "message"):
        value = choice.get(name)
        if isinstance(value, dict):
            if any(not is_empty(item) for field, item in value.items() if field != "role"):
                return value, name == "message"
        elif not is_empty(value):
            return {"content": value}, name == "message"
    names = (*_CONTENT, *_THOUGHTS, *_CALLS, "function_call", "refusal")
    return {name: choice[name] for name in names if name in choice}, False


def _calls_of(value: Any) -> Iterator[Any]:  # noqa: ANN401 - any JSON
    if isinstance(value, str) and value.strip():
        value = decode(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, list):
        yield from value
    elif value:
        yield value


def _legacy(value: Any) -> Iterator[Any]:  # noqa: ANN401 - any JSON
    if not is_empty(value):
        yield {"function": value}


def _speaks(value: Any) -> bool:  # noqa: ANN401 - any JSON
    return isinstance(value, dict | list | str) and not is_empty(value)


def _kind(said: Said) -> Kind:
    return "" if isinstance(said, dict) else said[0]
