"""OpenAI's chat dialect, the provider's side: reads the chunks of a streamed answer.

Unknown fields are ignored.
"""

from typing import Any, Final

import msgspec

from protocol.errors import ProviderError
from protocol.events import Delta, ReasoningDelta, ToolCallDelta
from protocol.llm import (
    FinishReason,
    Usage,
)
from protocol.refusals import refusal_of
from protocol.upstream import Deltas

DONE: Final = b"[DONE]"
_json = msgspec.json.Encoder().encode


class _FunctionDelta(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _CallDelta(msgspec.Struct, gc=False):
    index: int = 0
    id: str | None = None
    function: _FunctionDelta | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    refusal: str | None = None
    tool_calls: tuple[_CallDelta, ...] | None = None


class _Logprobs(msgspec.Struct, gc=False):
    content: list[Any] | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _InputDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: tuple[_Choice, ...] | None = None
    usage: _Usage | None = None
    error: Any = None


class _FirstChunk(_Chunk, gc=False):
    id: str | None = None
    model: str | None = None


_chunk = msgspec.json.Decoder(_Chunk).decode
_first_chunk = msgspec.json.Decoder(_FirstChunk).decode

_FINISH: Final[dict[str, FinishReason]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class ChatReader:
    """Reads one streamed answer, event by event.

    Attributes:
        finish_reason: why the model stopped; None until the stream says so.
        stop_sequence: always empty: the dialect does not report it.
        usage: tokens; None until they are reported.
        model: the upstream's name of the model.
        response_id: the upstream's id of the answer.
        ended: whether the stream's end marker has been read.
    """

    __slots__ = ("ended", "finish_reason", "model", "response_id", "stop_sequence", "usage")

    def __init__(self) -> None:
        self.finish_reason: FinishReason | None = None
        self.stop_sequence = ""
        self.usage: Usage | None = None
        self.model = ""
        self.response_id = ""
        self.ended = False

    @property
    def whole(self) -> bool:
        """Whether the answer is complete: the finish reason has been read."""
        return self.finish_reason is not None

    def feed(self, data: bytes, into: Deltas) -> None:
        """Read the data of one event and append its content to ``into``.

        Raises:
            ProviderError: ``provider_bad_response``: the data is not a chunk; or the failure of an in-band error.
        """
        if data == DONE:
            self.ended = True
            return
        try:
            chunk = _chunk(data) if self.response_id else self._first(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProviderError(code="provider_bad_response") from error
        if chunk.choices:
            for choice in chunk.choices:
                if choice.index == 0:
                    self._choice(choice, into)
        elif chunk.error is not None:
            raise refusal_of(0, chunk.error)
        if chunk.usage is not None:
            self.usage = _canonical_usage(chunk.usage)

    def _first(self, data: bytes) -> _Chunk:
        """Read the first chunk, with the id and the model, which are the same in all chunks."""
        chunk = _first_chunk(data)
        self.response_id = chunk.id or ""
        self.model = chunk.model or ""
        return chunk

    def _choice(self, choice: _Choice, into: Deltas) -> None:
        delta = choice.delta
        if delta is not None:
            thought = delta.reasoning_content or delta.reasoning
            if thought and isinstance(thought, str):
                into.append(ReasoningDelta(text=thought))
            text = delta.content or delta.refusal
            if choice.logprobs is not None and choice.logprobs.content:
                into.append(Delta(text=text or "", logprobs=_json(choice.logprobs.content).decode()))
            elif text:
                into.append(Delta(text=text))
            if delta.tool_calls:
                into.extend(map(_tool_delta, delta.tool_calls))
        if choice.finish_reason:
            self.finish_reason = _FINISH.get(choice.finish_reason, "stop")


def _tool_delta(call: _CallDelta) -> ToolCallDelta:
    function = call.function or _FunctionDelta()
    return ToolCallDelta(
        index=call.index, id=call.id or "", name=function.name or "", arguments=function.arguments or ""
    )


def _canonical_usage(wire: _Usage) -> Usage:
    """Return the tokens by class. Tokens written to the cache are at most those that were not read from it."""
    inputs, outputs = wire.prompt_tokens_details, wire.completion_tokens_details
    total = wire.prompt_tokens or 0
    cached = (inputs.cached_tokens or 0) if inputs else 0
    written = (inputs.cache_write_tokens or 0) if inputs else 0
    return Usage(
        input_tokens=total,
        output_tokens=wire.completion_tokens or 0,
        cached_input_tokens=cached,
        reasoning_tokens=(outputs.reasoning_tokens or 0) if outputs else 0,
        cache_write_input_tokens=min(written, max(0, total - cached)),
    )
