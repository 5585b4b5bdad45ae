"""The answers of Anthropic's dialect, as ``/openapi.json`` describes them. ``protocol.anthropic`` writes them as JSON.

A vendor's upstream may add fields: none of these objects is closed.
"""

from typing import Annotated, Any, Literal

import msgspec

_TYPED = msgspec.Meta(
    extra_json_schema={"items": {"type": "object", "required": ["type"], "properties": {"type": {"type": "string"}}}}
)


class AnthropicErrorDetails(msgspec.Struct, frozen=True):
    """The failure's code, one of `/errors/{code}`."""

    error_code: str


class AnthropicErrorInfo(msgspec.Struct, frozen=True):
    """What went wrong."""

    type: str
    message: str
    details: AnthropicErrorDetails


class AnthropicError(msgspec.Struct, frozen=True):
    """Anthropic's error envelope."""

    type: Literal["error"]
    error: AnthropicErrorInfo
    request_id: str


class ThinkingTokens(msgspec.Struct, frozen=True):
    """Output tokens of the reasoning."""

    thinking_tokens: int


class MessageUsage(msgspec.Struct, frozen=True):
    """The tokens of all attempts; ``input_tokens`` without those read from and written to the provider's cache."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: ThinkingTokens | msgspec.UnsetType = msgspec.UNSET


class MessageAnswer(msgspec.Struct, frozen=True):
    """A whole message. ``id`` is ``msg_`` and the request's id.

    Attributes:
        id: its id.
        type: always ``message``.
        role: always ``assistant``.
        model: the model, as the caller named it.
        content: its blocks: ``text``, ``thinking``, ``tool_use``, and those of the vendor's own.
        stop_reason: why the model stopped; it may be a provider's own word.
        stop_sequence: the text at which it stopped; null for none.
        usage: the tokens.
    """

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: Annotated[list[dict[str, Any]], _TYPED]
    stop_reason: str | None
    stop_sequence: str | None
    usage: MessageUsage


class TokenCount(msgspec.Struct, frozen=True):
    """About how many input tokens a message has."""

    input_tokens: int


class AnthropicModel(msgspec.Struct, frozen=True):
    """A model in Anthropic's form."""

    type: Literal["model"]
    id: str
    display_name: str
    created_at: Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
    lifecycle: str


class AnthropicModelList(msgspec.Struct, frozen=True):
    """The models in Anthropic's form, always one page."""

    data: list[AnthropicModel]
    has_more: bool
    first_id: str | None
    last_id: str | None
