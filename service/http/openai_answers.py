"""The answers of OpenAI's dialect, as ``/openapi.json`` describes them. ``protocol.openai`` writes them as JSON.

A vendor's upstream may add fields: none of these objects is closed.
"""

from typing import Any, Literal

import msgspec


class OpenAIErrorInfo(msgspec.Struct, frozen=True):
    """What went wrong. ``code`` is a code of `/errors/{code}`, and ``param`` the path of the invalid field."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIError(msgspec.Struct, frozen=True):
    """OpenAI's error envelope."""

    error: OpenAIErrorInfo


class ChatAnswerFunction(msgspec.Struct, frozen=True):
    """A function and its arguments, as JSON text."""

    name: str
    arguments: str


class ChatAnswerCall(msgspec.Struct, frozen=True):
    """A tool call by the model."""

    id: str
    type: str
    function: ChatAnswerFunction | msgspec.UnsetType = msgspec.UNSET


class ChatAnswerMessage(msgspec.Struct, frozen=True):
    """The model's message.

    Attributes:
        role: always ``assistant``.
        content: the text; null where there are only tool calls or a refusal.
        refusal: the text with which the model refused.
        tool_calls: its tool calls.
        reasoning_content: the text of its reasoning.
    """

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    tool_calls: list[ChatAnswerCall] | msgspec.UnsetType = msgspec.UNSET
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET


class ChatChoice(msgspec.Struct, frozen=True):
    """The one choice of an answer. ``finish_reason`` may be a provider's own word."""

    index: int
    message: ChatAnswerMessage
    logprobs: dict[str, Any] | None
    finish_reason: str


class PromptTokens(msgspec.Struct, frozen=True):
    """Input tokens that were read from or written to the provider's cache."""

    cached_tokens: int
    cache_write_tokens: int


class CompletionTokens(msgspec.Struct, frozen=True):
    """Output tokens of the reasoning."""

    reasoning_tokens: int


class ChatUsage(msgspec.Struct, frozen=True):
    """The tokens of all attempts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokens
    completion_tokens_details: CompletionTokens


class ChatCompletion(msgspec.Struct, frozen=True):
    """A whole chat completion. ``id`` is ``chatcmpl-`` and the request's id."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage


class ResponseFailure(msgspec.Struct, frozen=True):
    """Why a response failed."""

    code: str
    message: str


class IncompleteDetails(msgspec.Struct, frozen=True):
    """Why a response is incomplete: ``max_output_tokens``, ``content_filter``, or a provider's own word."""

    reason: str


class InputTokens(msgspec.Struct, frozen=True):
    """Input tokens that were read from or written to the provider's cache."""

    cached_tokens: int
    cache_write_tokens: int


class ResponseUsage(msgspec.Struct, frozen=True):
    """The tokens of all attempts."""

    input_tokens: int
    input_tokens_details: InputTokens
    output_tokens: int
    output_tokens_details: CompletionTokens
    total_tokens: int


class ResponseItem(msgspec.Struct, frozen=True):
    """An item of the output: a message, reasoning, or a function call.

    Attributes:
        id: unique within the response.
        type: ``message``, ``reasoning`` or ``function_call``.
        status: ``in_progress``, ``completed`` or ``incomplete``.
        role: of a message.
        content: of a message and of reasoning: its parts.
        summary: of reasoning; empty.
        call_id: of a function call.
        name: of a function call.
        arguments: of a function call, as JSON text.
    """

    id: str
    type: Literal["message", "reasoning", "function_call"]
    status: Literal["in_progress", "completed", "incomplete"]
    role: Literal["assistant"] | msgspec.UnsetType = msgspec.UNSET
    content: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET
    summary: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET
    call_id: str | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType = msgspec.UNSET
    arguments: str | msgspec.UnsetType = msgspec.UNSET


class ResponseAnswer(msgspec.Struct, frozen=True):
    """A response in its current state. ``id`` is ``resp_`` and the request's id."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    background: bool
    completed_at: int | None
    error: ResponseFailure | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[ResponseItem]
    parallel_tool_calls: bool
    previous_response_id: str | None
    store: bool
    temperature: float | None
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_p: float | None
    truncation: Literal["disabled"]
    usage: ResponseUsage | None


class EmbeddingVector(msgspec.Struct, frozen=True):
    """One vector, as numbers or in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(msgspec.Struct, frozen=True):
    """The tokens of the texts that were embedded for this call."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct, frozen=True):
    """The vectors of the inputs, in their order."""

    object: Literal["list"]
    data: list[EmbeddingVector]
    model: str
    usage: EmbeddingUsage


class OpenAIModel(msgspec.Struct, frozen=True):
    """A model in OpenAI's form. ``owned_by`` is its provider."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class OpenAIModelList(msgspec.Struct, frozen=True):
    """The models in OpenAI's form."""

    object: Literal["list"]
    data: list[OpenAIModel]
