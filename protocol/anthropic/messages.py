"""Anthropic's messages dialect, what clients send: decodes the body of a call into the canonical model.

Unknown top-level fields are kept in ``ChatRequest.extra``, for upstreams of the same dialect; vendor extras of a block
or a tool in its own ``extra``.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec

from protocol.anthropic.blocks import Block, OwnTool, TextBlock, block_of, tool_of
from protocol.anthropic.upstream import BETAS, DIALECT
from protocol.errors import InvalidRequest
from protocol.json.validation import invalid_field, invalid_value
from protocol.llm import ChatMessage, ChatRequest, ContentPart
from protocol.turns import content_of, turn_of

CHOICES: Final = {"auto": "auto", "none": "none", "any": "required"}


class _Message(msgspec.Struct, frozen=True):
    role: Literal["user", "assistant", "system"]
    content: str | tuple[Block, ...]


class _LooseMessage(msgspec.Struct, frozen=True):
    role: Literal["user", "assistant", "system"]
    content: str | tuple[msgspec.Raw, ...]


class _Choice(msgspec.Struct, frozen=True):
    type: Literal["auto", "any", "none", "tool"]
    name: str = ""


class _Format(msgspec.Struct, frozen=True):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class _OutputConfig(msgspec.Struct, frozen=True):
    format: _Format | None = None


class _Common(msgspec.Struct, frozen=True, kw_only=True):
    model: Annotated[str, msgspec.Meta(min_length=1)]
    tool_choice: _Choice | None = None
    output_config: _OutputConfig | None = None
    stream: bool | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    stop_sequences: tuple[str, ...] | None = None


class CountBody(_Common, frozen=True, kw_only=True):
    """The body of a count; this form has blocks and tools without unknown fields, and is decoded in one step.

    Attributes:
        model: a model of ``GET /v1/models``.
        messages: the conversation.
        system: the system prompt.
        tools: tools that the model may call.
        tool_choice: whether and which tool the model calls.
        output_config: a JSON Schema that the answer has to match.
        stream: whether to stream the answer.
        temperature: 0..1.
        top_p: 0..1.
        stop_sequences: texts at which the model stops, at most 64.
        max_tokens: the most tokens of the answer.
    """

    messages: Annotated[tuple[_Message, ...], msgspec.Meta(min_length=1)]
    system: str | tuple[TextBlock, ...] | None = None
    tools: tuple[OwnTool, ...] | None = None
    max_tokens: int | None = None


class _LooseCountBody(_Common, frozen=True, kw_only=True):
    """Any other body: its blocks and tools are still JSON."""

    messages: Annotated[tuple[_LooseMessage, ...], msgspec.Meta(min_length=1)]
    system: str | tuple[msgspec.Raw, ...] | None = None
    tools: tuple[msgspec.Raw, ...] | None = None
    max_tokens: int | None = None


class MessageBody(CountBody, frozen=True, kw_only=True):
    """The body of a message; this form has blocks and tools without unknown fields, and is decoded in one step."""

    max_tokens: Annotated[int, msgspec.Meta(ge=1)]


class _LooseBody(_LooseCountBody, frozen=True, kw_only=True):
    max_tokens: Annotated[int, msgspec.Meta(ge=1)]


_KNOWN: Final = frozenset({*MessageBody.__struct_fields__, BETAS})
MAX_BETAS: Final = 32
_BETA: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CANONICAL_FIELDS: Final = {"output_config": {"format"}, "tool_choice": {"type", "name"}}

_CountWire = CountBody | _LooseCountBody

_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_count_body: Final = msgspec.json.Decoder(CountBody).decode
_loose_count_body: Final = msgspec.json.Decoder(_LooseCountBody).decode
_body: Final = msgspec.json.Decoder(MessageBody).decode
_loose_body: Final = msgspec.json.Decoder(_LooseBody).decode


class MessageCall(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed body of ``POST /v1/messages``: the canonical request, and whether to stream the answer."""

    request: ChatRequest
    stream: bool = False


def parse_betas(header: str) -> tuple[str, ...]:
    """Parse the header ``anthropic-beta``: names of the vendor's features, separated by commas.

    Raises:
        InvalidRequest: there are too many names, or one is not valid.
    """
    names = tuple(dict.fromkeys(name for part in header.split(",") if (name := part.strip())))
    if len(names) > MAX_BETAS or not all(map(_BETA.fullmatch, names)):
        raise invalid_field(
            "anthropic-beta", f"must be at most {MAX_BETAS} names of features, with commas between them"
        )
    return names


def parse_messages(body: bytes, betas: str = "") -> MessageCall:
    """Parse the body of ``POST /v1/messages``, and the header ``anthropic-beta``.

    Raises:
        InvalidRequest: ``malformed_json``, or ``invalid_request`` with the path of the invalid field.
    """
    wire, request = _parse(_body, _loose_body, body)
    names = parse_betas(betas) if betas else ()
    request = msgspec.structs.replace(
        request,
        extra={**request.extra, BETAS: [*names]} if names else request.extra,
        temperature=wire.temperature,
        top_p=wire.top_p,
        max_tokens=wire.max_tokens,
        stop=wire.stop_sequences or (),
    )
    return MessageCall(request=request, stream=bool(wire.stream))


def parse_count(body: bytes) -> ChatRequest:
    """Parse the body of ``POST /v1/messages/count_tokens``; raises as :func:`parse_messages`."""
    return _parse(_count_body, _loose_count_body, body)[1]


def _parse(
    decode: Callable[[bytes], _CountWire], decode_loosely: Callable[[bytes], _CountWire], body: bytes
) -> tuple[_CountWire, ChatRequest]:
    try:
        try:
            wire = decode(body)
        except msgspec.ValidationError:
            wire = decode_loosely(body)
        return wire, _request(wire, _extra(_fields(body)))
    except msgspec.ValidationError as error:
        raise _refused(body, error) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(code="malformed_json") from error


def _refused(body: bytes, error: msgspec.ValidationError) -> InvalidRequest:
    """Return the failure: ``malformed_json`` where the rest of the body is not JSON, otherwise the invalid field."""
    try:
        msgspec.json.decode(body)
    except msgspec.ValidationError:
        pass  # valid JSON with a number out of range: the first error says more
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return InvalidRequest(code="malformed_json")
    return invalid_value(str(error))


def _request(wire: _CountWire, extra: dict[str, Any]) -> ChatRequest:
    turns: Sequence[_Message | _LooseMessage] = wire.messages
    tools: Sequence[OwnTool | msgspec.Raw] = wire.tools or ()
    messages = [message for index, turn in enumerate(turns) for message in _messages(turn, index)]
    system = _system(wire.system)
    if system:
        messages.insert(0, ChatMessage(role="system", content=system))
    return ChatRequest(
        model=wire.model,
        messages=tuple(messages),
        schema=wire.output_config.format.schema if wire.output_config and wire.output_config.format else None,
        tools=tuple(tool_of(tool, f"$.tools[{index}]") for index, tool in enumerate(tools)),
        tool_choice=_tool_choice(wire.tool_choice),
        extra=extra,
        dialect=DIALECT,
    )


def _system(system: str | Sequence[TextBlock | msgspec.Raw] | None) -> str | tuple[ContentPart, ...]:
    if system is None or isinstance(system, str):
        return system or ""
    found = [block_of(block, "system", f"$.system[{index}]") for index, block in enumerate(system)]
    return content_of([part for part in found if not isinstance(part, ChatMessage)])


def _extra(fields: dict[str, msgspec.Raw]) -> dict[str, Any]:
    """Return the unknown fields, and unknown fields inside known ones."""
    extra = {name: msgspec.json.decode(fields[name]) for name in sorted(fields.keys() - _KNOWN)}
    for name, canonical in _CANONICAL_FIELDS.items():
        if name in fields:
            inner = msgspec.json.decode(fields[name], type=dict[str, Any] | None) or {}
            unknown = {key: value for key, value in inner.items() if key not in canonical}
            if unknown:
                extra[name] = unknown
    return extra


def _tool_choice(choice: _Choice | None) -> str:
    if choice is None:
        return ""
    if choice.type != "tool":
        return CHOICES[choice.type]
    if not choice.name:
        raise invalid_field("$.tool_choice.name", "Object missing required field `name`")
    return choice.name


def _messages(wire: _Message | _LooseMessage, index: int) -> Iterator[ChatMessage]:
    """Yield the canonical messages of one turn: one for each tool result, then one for the rest.

    The vendor takes results at the beginning of a turn only.
    """
    if isinstance(wire.content, str):
        yield ChatMessage(role=wire.role, content=wire.content)
        return
    parts: list[ContentPart] = []
    for place, block in enumerate(wire.content):
        found = block_of(block, wire.role, f"$.messages[{index}].content[{place}]")
        if isinstance(found, ChatMessage):
            yield found
        else:
            parts.append(found)
    if parts or not wire.content or wire.role != "user":
        yield turn_of(wire.role, parts)
