"""The canonical chat model: every dialect is mapped to it and from it.

A request in OpenAI's, Anthropic's or our own dialect becomes one :class:`ChatRequest`; providers see nothing else. All
structs are frozen and decode strictly, so the native endpoint decodes them directly.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

import msgspec

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "other"]
"""Why a model stopped; ``other``: for a reason of the upstream's own, which is kept beside it."""


Vendor = Literal["openai", "anthropic"]
Extra = Annotated[
    dict[Vendor, dict[str, Any]], msgspec.Meta(extra_json_schema={"propertyNames": {"enum": ["openai", "anthropic"]}})
]

MAX_MODEL: Final = 256  # characters of a model's name
MAX_SPEAKER: Final = 64  # characters of the name of a message's author, OpenAI's limit
MAX_STOPS: Final = 4  # OpenAI's limit
MAX_TOOLS: Final = 10_000  # Anthropic's limit; an upstream with a lower one refuses itself
MAX_TOOL_NAME: Final = 256  # characters; names that a vendor does not take are shortened for it
MAX_TEMPERATURE: Final = 2
MAX_TOKENS: Final = 2**31 - 1
MAX_INT: Final = 2**63 - 1
TOOL_NAME: Final = rf"^[^\x00-\x20\x7f]{{1,{MAX_TOOL_NAME}}}$"

_Id = Annotated[str, msgspec.Meta(extra_json_schema={"minLength": 1})]
_ToolName = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": TOOL_NAME})]
_Speaker = Annotated[str, msgspec.Meta(extra_json_schema={"maxLength": MAX_SPEAKER})]
"""Bounds that the JSON Schema says and the decoder does not check: the validation does, and reports all at once."""


class _Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """Base of the structs: frozen, camelCase JSON, and unknown fields are errors."""


class TextPart(_Wire, frozen=True, tag_field="type", tag="text"):
    """A text. ``extra`` has further fields, by dialect; only upstreams of that dialect get them."""

    text: str
    extra: Extra = {}


class ImagePart(_Wire, frozen=True, tag_field="type", tag="image"):
    """An image by its ``https:`` or ``data:`` URL. ``detail`` is OpenAI's resolution setting."""

    url: str
    detail: str = ""
    extra: Extra = {}


class FilePart(_Wire, frozen=True, tag_field="type", tag="file"):
    """A document, by URL or as text.

    Attributes:
        url: an ``https:`` URL, or a ``data:`` URL in base64 with the media type.
        text: the content of a plain text.
        filename: its name; empty for none.
        extra: as for ``TextPart``.
    """

    url: str = ""
    text: str = ""
    filename: str = ""
    extra: Extra = {}


class VendorPart(_Wire, frozen=True, tag_field="type", tag="vendor"):
    """A part that exists in one dialect only, unchanged. Upstreams of other dialects can't be sent it."""

    dialect: Vendor
    value: dict[str, Any]


class ReasoningPart(_Wire, frozen=True, tag_field="type", tag="reasoning"):
    """The model's reasoning before an answer, to be sent back to the model unchanged.

    Anthropic upstreams get the signed parts, upstreams of OpenAI's dialect the unsigned ones.

    Attributes:
        text: the reasoning; empty where the vendor does not show it.
        signature: Anthropic's signature; for a redacted part, its encrypted data.
        redacted: whether the text is hidden.
    """

    text: str = ""
    signature: str = ""
    redacted: bool = False


class ToolCallPart(_Wire, frozen=True, tag_field="type", tag="tool_call"):
    """A tool call by the model, at its place among the other parts of a message.

    Attributes:
        id: the call's id.
        name: the tool's name.
        arguments: JSON text, exactly as the model wrote it.
        extra: as for ``TextPart``.
    """

    id: _Id
    name: _ToolName
    arguments: str = "{}"
    extra: Extra = {}


class RefusalPart(_Wire, frozen=True, tag_field="type", tag="refusal"):
    """The text with which the model refused to answer."""

    text: str


AnswerPart = TextPart | ReasoningPart | ToolCallPart | RefusalPart | VendorPart
ContentPart = AnswerPart | ImagePart | FilePart


class ToolCall(_Wire, frozen=True):
    """A tool call by the model. ``arguments`` is JSON text, exactly as the model wrote it."""

    id: _Id
    name: _ToolName
    arguments: str = "{}"
    extra: Extra = {}


class ChatMessage(_Wire, frozen=True):
    """A message of the conversation.

    Attributes:
        role: the author's role.
        content: a text, or parts.
        tool_calls: the tool calls of an assistant message that stand behind its content; ``parts_of`` has all parts in
            their order.
        tool_call_id: the call that a tool message answers.
        name: the author's name, where several authors have the same role.
        is_error: whether a tool message reports a failed call.
        extra: of a tool message, as for ``TextPart``.
    """

    role: Role
    content: str | tuple[ContentPart, ...] = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: _Speaker = ""
    is_error: bool = False
    extra: Extra = {}


def parts_of(message: ChatMessage) -> tuple[ContentPart, ...]:
    """Return the parts of a message in their order: its content, then the calls that are not part of the content."""
    content = message.content
    if isinstance(content, str):
        content = (TextPart(text=content),) if content else ()
    if not message.tool_calls:
        return content
    return *content, *(
        ToolCallPart(id=c.id, name=c.name, arguments=c.arguments, extra=c.extra) for c in message.tool_calls
    )


class HasParts:
    """Base of the structs that have an answer's parts, with what is derived from them."""

    __slots__ = ()

    parts: tuple[AnswerPart, ...]

    @property
    def text(self) -> str:
        """The text of all text parts."""
        return text_of(self.parts)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls, in order."""
        return calls_of(self.parts)

    @property
    def thoughts(self) -> tuple[ReasoningPart, ...]:
        """The parts of the reasoning, in order."""
        return tuple([part for part in self.parts if isinstance(part, ReasoningPart)])

    @property
    def refusal(self) -> str:
        """The text of all refusals."""
        return "".join([part.text for part in self.parts if isinstance(part, RefusalPart)])


def text_of(parts: Iterable[AnswerPart]) -> str:
    """Return the text of all text parts."""
    return "".join([part.text for part in parts if isinstance(part, TextPart)])


def calls_of(parts: Iterable[AnswerPart]) -> tuple[ToolCall, ...]:
    """Return the tool calls, in order."""
    return tuple(
        [
            ToolCall(id=part.id, name=part.name, arguments=part.arguments, extra=part.extra)
            for part in parts
            if isinstance(part, ToolCallPart)
        ]
    )


def size_of(parts: Iterable[AnswerPart]) -> int:
    """Return the size of the parts' texts, in bytes of UTF-8; that of a vendor's part is its JSON's."""
    size = 0
    for part in parts:
        if isinstance(part, TextPart):
            size += utf8_length(part.text)
        elif isinstance(part, VendorPart):
            size += len(msgspec.json.encode(part.value))
        elif isinstance(part, ToolCallPart):
            size += utf8_length(part.id) + utf8_length(part.name) + utf8_length(part.arguments)
        else:
            size += utf8_length(part.text) + (utf8_length(part.signature) if isinstance(part, ReasoningPart) else 0)
    return size


def utf8_length(text: str) -> int:
    """Return the length of ``text`` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


class Tool(_Wire, frozen=True):
    """A function that the model may call. ``parameters`` is a JSON Schema object; ``extra`` as for ``TextPart``."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    extra: Extra = {}


class ChatRequest(_Wire, frozen=True):
    """A chat request to a model. Every field affects the answer, so all of them are part of the fingerprint.

    Attributes:
        model: a model name or alias, as the caller wrote it; ``default`` is the service's default.
        messages: the conversation; never empty.
        schema: a JSON Schema that the answer has to match; None for free text.
        tools: functions that the model may call.
        tool_choice: ``auto``, ``none``, ``required``, or a tool's name; empty for the model's default.
        temperature: 0..2; None for the model's default.
        top_p: 0..1; None for the model's default.
        max_tokens: the most tokens of the answer; None for the model's default.
        seed: makes sampling repeatable where the model supports it.
        stop: texts at which the model stops.
        extra: unknown fields of the caller's dialect, passed to upstreams of the same dialect.
        dialect: the dialect of ``extra``.
    """

    model: str
    messages: tuple[ChatMessage, ...]
    schema: dict[str, Any] | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: str = ""
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    extra: dict[str, Any] = {}
    dialect: Literal["native", "openai", "anthropic"] = "native"


class Usage(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Tokens by class. The first four are always in the JSON, also when 0.

    Attributes:
        input_tokens: all input tokens, including those read from and written to the provider's cache.
        output_tokens: all output tokens, including the reasoning.
        cached_input_tokens: input tokens read from the provider's cache.
        reasoning_tokens: output tokens of the reasoning.
        cache_write_input_tokens: input tokens written to the provider's cache, which have a price of their own.
    """

    input_tokens: int = msgspec.field(default_factory=int)
    output_tokens: int = msgspec.field(default_factory=int)
    cached_input_tokens: int = msgspec.field(default_factory=int)
    reasoning_tokens: int = msgspec.field(default_factory=int)
    cache_write_input_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_input_tokens=self.cached_input_tokens + other.cached_input_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            cache_write_input_tokens=self.cache_write_input_tokens + other.cache_write_input_tokens,
        )


class Cost(msgspec.Struct, frozen=True):
    """A cost in US dollars. An unknown price is None instead of a ``Cost``, never 0."""

    usd: Decimal


class Attempt(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The report of one call to a provider.

    Attributes:
        provider: the provider's name.
        model: the provider's name of the model.
        error: the code of the failure; empty for success.
        duration_ms: from sending to the end, in milliseconds.
        usage: its tokens, also of a failed call; None where it produced nothing, or while its usage is still read.
        cost: the cost of its tokens; None also where the price is unknown.
        estimated: whether ``usage`` is an estimate, because the provider did not report it, or not plausibly.
        warning: what is odd about an answer that was taken all the same; empty for nothing.
    """

    provider: str
    model: str
    error: str = ""
    duration_ms: float = 0.0
    usage: Usage | None = None
    cost: Cost | None = None
    estimated: bool = False
    warning: str = ""
