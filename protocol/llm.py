"""The canonical chat model: what every dialect is mapped to and from.

A request that came in as OpenAI's, Anthropic's or our own JSON is one :class:`ChatRequest`; a provider sees nothing
else. All structs are frozen and decode strictly, so the native endpoint uses them as they stand.
"""

from decimal import Decimal
from typing import Any, Literal

import msgspec

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


Vendor = Literal["openai", "anthropic"]
Extra = dict[Vendor, dict[str, Any]]


class _Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """Frozen camelCase JSON in which an unknown field is an error."""


class TextPart(_Wire, frozen=True, tag_field="type", tag="text"):
    """A piece of text; ``extra`` has fields beside its own that only upstreams of a dialect get."""

    text: str
    extra: Extra = {}


class ImagePart(_Wire, frozen=True, tag_field="type", tag="image"):
    """An image by ``https:`` or ``data:`` URL; ``detail`` is how closely OpenAI's models are to look at it."""

    url: str
    detail: str = ""
    extra: Extra = {}


class FilePart(_Wire, frozen=True, tag_field="type", tag="file"):
    """A document: either at a URL, or a text.

    Attributes:
        url: an ``https:`` URL, or a ``data:`` URL in base64 that names the media type.
        text: what it says, where it is a plain text.
        filename: what it is called; empty for nothing.
        extra: as of a text.
    """

    url: str = ""
    text: str = ""
    filename: str = ""
    extra: Extra = {}


class VendorPart(_Wire, frozen=True, tag_field="type", tag="vendor"):
    """A part that one dialect alone has, in its own words: an upstream of another one can't be asked with it."""

    dialect: Vendor
    value: dict[str, Any]


class ReasoningPart(_Wire, frozen=True, tag_field="type", tag="reasoning"):
    """What the model thought before it answered, to be given back to it word for word.

    An Anthropic upstream gets those that are signed, one that speaks OpenAI's dialect the others.

    Attributes:
        text: the thought; empty where the vendor keeps it to itself.
        signature: what Anthropic knows it by again; of a redacted one, all that there is of it.
        redacted: whether it can't be read.
    """

    text: str = ""
    signature: str = ""
    redacted: bool = False


ContentPart = TextPart | ImagePart | FilePart | ReasoningPart | VendorPart


class ToolCall(_Wire, frozen=True):
    """A call that the model asks for: ``arguments`` is a JSON text, word for word as the model wrote it."""

    id: str
    name: str
    arguments: str = "{}"
    extra: Extra = {}


class ChatMessage(_Wire, frozen=True):
    """One turn of the conversation.

    Attributes:
        role: who speaks.
        content: a text, or parts.
        tool_calls: the calls of an assistant's turn.
        tool_call_id: the call that a tool's turn answers.
        name: who speaks, among several of the same role.
        is_error: whether a tool's turn says that the call has failed.
        extra: of a tool's turn, as of a text.
    """

    role: Role
    content: str | tuple[ContentPart, ...] = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""
    is_error: bool = False
    extra: Extra = {}


class Tool(_Wire, frozen=True):
    """A function that the model may call: ``parameters`` is a JSON Schema object, ``extra`` as of a text."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    extra: Extra = {}


class ChatRequest(_Wire, frozen=True):
    """What the model is asked: everything here shapes the answer, and so belongs to the fingerprint.

    Attributes:
        model: a model name or alias, as the caller said it; ``default`` is the service's default.
        messages: the conversation; never empty.
        schema: a JSON Schema that the answer has to match, or None for free text.
        tools: functions that the model may call.
        tool_choice: ``auto``, ``none``, ``required``, or a tool's name; empty for the model's default.
        temperature: 0..2, or None for the model's default.
        top_p: 0..1, or None for the model's default.
        max_tokens: the most tokens of answer, or None for the model's default.
        seed: makes sampling repeatable where the model can.
        stop: texts at which the model stops.
        extra: fields of the caller's dialect that are not ours, passed through to an upstream of the same dialect.
        dialect: whose fields ``extra`` are.
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
    """Tokens by class; the first four are always said, also where they are 0.

    Attributes:
        input_tokens: all of the input, those from and into the provider's cache included.
        output_tokens: all of the output, the reasoning included.
        cached_input_tokens: input that the provider had in its cache.
        reasoning_tokens: output that nobody sees.
        cache_write_input_tokens: input that the provider has put into its cache, at a rate of its own.
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
    """What something cost, in US dollars. An unknown price is no ``Cost`` at all, never 0."""

    usd: Decimal


class Attempt(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One call to a provider.

    Attributes:
        provider: the provider's name.
        model: the provider's own name of the model.
        error: the code of the failure; empty for success.
        duration_ms: from sending to the end, in milliseconds.
        usage: its tokens, whatever its end; None where it brought nothing, or while they are still being read.
        cost: what they cost; None where the price is unknown, too.
        estimated: whether ``usage`` is our estimate, because the provider had not counted when the call broke off.
    """

    provider: str
    model: str
    error: str = ""
    duration_ms: float = 0.0
    usage: Usage | None = None
    cost: Cost | None = None
    estimated: bool = False
