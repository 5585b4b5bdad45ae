"""OpenAI's chat dialect, the provider's side: reads the chunks of a streamed answer, and whole answers.

A chunk as the vendor sends it is decoded into structs. Anything else is read loosely: fields of other types, under
other names, or at other places. Content that can't be read fails the answer; what nobody needs is dropped, and fields
of an upstream's own come back as they are. An upstream's error text is never passed on.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from protocol.errors import ProviderError
from protocol.events import Delta, ReasoningDelta
from protocol.llm import Extra, Usage
from protocol.openai.chunks import (
    NO_CHOICES,
    NO_INDEX,
    AroundChoice,
    Chunk,
    ChunkUsage,
    FirstChunk,
    PlainChoice,
    around_choices,
    first_chunk,
    no_chunk,
    plain_chunk,
    wide_chunk,
)
from protocol.openai.loose_choice import delta_of, first_choices
from protocol.openai.message_parts import MessageParts
from protocol.openai.vendor_fields import LAST
from protocol.reading.claims import MAX_TOKENS, Claims
from protocol.reading.failures import failure_in, failure_in_choice, raise_found
from protocol.reading.finish import finish_of, word_of
from protocol.reading.loose import MAX_LABEL, decode, label_of, split_name
from protocol.upstream import Deltas

DONE: Final = b"[DONE]"
_ERROR: Final = b'"error"'
_AROUND: Final = ("x_groq", "base_resp", "citations", "search_results")
_NOTHING: Final = AroundChoice()


class ChatReader(MessageParts):
    """Reads one answer, event by event: a ``protocol.upstream.AnswerReader``.

    Attributes:
        finish_reason: why the model stopped; None until the stream says so.
        raw_finish_reason: the upstream's own word for a reason that is not known.
        refused: whether the model has said that it refuses to answer.
        stop_sequence: always empty: the dialect does not report it.
        usage: tokens; None until they are reported.
        counted: whether the output has been counted.
        model: the upstream's name of the model.
        response_id: the upstream's id of the answer.
        ended: whether the stream's end has been read.
    """

    __slots__ = (
        "_claims",
        "_decode",
        "counted",
        "ended",
        "model",
        "response_id",
        "stop_sequence",
        "usage",
    )

    def __init__(self) -> None:
        super().__init__()
        self.stop_sequence = ""
        self.usage: Usage | None = None
        self.counted = False
        self.model = ""
        self.response_id = ""
        self.ended = False
        self._decode: Callable[[bytes], Chunk] = first_chunk
        self._claims: Claims | None = None

    @property
    def whole(self) -> bool:
        """Whether the answer is complete: a known finish reason has been read, or any with the stream's end."""
        return self.finish_reason is not None and (self.ended or self.finish_reason != "other")

    @property
    def extra(self) -> Extra:
        """Empty: what only this dialect has is a part."""
        return {}

    def feed(self, data: bytes, into: Deltas) -> None:
        """Read the data of one event and append its content to ``into``.

        Raises:
            ProviderError: ``provider_bad_response``: the data is not a chunk; or the failure of an in-band error, or
                of a finish reason that says that the answer broke off.
        """
        if data == DONE:
            self.close(into, proper=True)
            return
        try:
            chunk = self._decode(data)
        except (ValueError, RecursionError):
            chunk = self._widened(data)
        choices = chunk.choices
        if choices:
            for choice in choices:
                delta = choice.delta
                if (
                    delta is not None
                    and (text := delta.content)
                    and self._kind == "text"
                    and not (choice.index or choice.finish_reason or choice.logprobs)
                    and not (delta.reasoning_content or delta.reasoning or delta.tool_calls)
                ):  # more of a text and nothing else, as nearly every chunk is
                    into.append(Delta(text=text, part=self._part))
                    self._texts.append(text)
                elif (
                    (choice.index == 0 or (choice.index == NO_INDEX and choice is choices[0]))
                    and not self._read(choice, into)
                    and self.response_id
                ):
                    self._read_around_choices(data, into)
        elif chunk.usage is None or _ERROR in data:
            self._feed_loosely(data, into)
        if chunk.usage is not None:
            self._count_plain(chunk.usage)
        if not self.response_id:
            self._begin_answer(chunk)

    def close(self, into: Deltas, *, proper: bool) -> None:
        """Read the end of the stream, and append the content that waited for it to ``into``. Idempotent.

        Raises:
            ProviderError: ``provider_bad_response``: a tool call has no name, or only a part of it came.
        """
        if proper:
            self.ended = True
        elif not self.ended and not self.whole:
            return
        self._end_message(into)

    def _widened(self, data: bytes) -> Chunk:
        """Decode a chunk with fields that only some upstreams send, which are then expected.

        Another one is ``NO_CHOICES``: it is read loosely.
        """
        if self._decode is not plain_chunk:
            return NO_CHOICES
        try:
            chunk = wide_chunk(data)
        except (ValueError, RecursionError):
            return NO_CHOICES
        self._decode = wide_chunk
        return chunk

    def _begin_answer(self, chunk: Chunk) -> None:
        """Take over the id and the model, which are the same in all chunks."""
        if isinstance(chunk, FirstChunk):
            self.response_id = (chunk.id or self.response_id)[:MAX_LABEL]
            self.model = (chunk.model or self.model)[:MAX_LABEL]
            if self.response_id:
                self._decode = plain_chunk

    def _read(self, choice: PlainChoice, into: Deltas) -> bool:
        """Append the content of a chunk; False where the chunk may have a rare field, too."""
        delta = choice.delta
        plain = False
        if delta is not None:
            thought = delta.reasoning_content or delta.reasoning
            if thought:
                if self._kind != "reasoning":
                    self._begin("reasoning", into)
                into.append(ReasoningDelta(text=thought, part=self._part))
            elif delta.reasoning_content is not None:
                self._empty_thought = True
            text = delta.content
            if choice.logprobs is not None and choice.logprobs.content:
                self._add_text(text or "", choice.logprobs.content, into)
            elif text and not self._repeats(text, choice.finish_reason):
                plain = True
                if self._kind != "text":
                    self._begin("text", into)
                into.append(Delta(text=text, part=self._part))
                self._texts.append(text)
            if delta.tool_calls:
                plain = True
                self._add_calls(delta.tool_calls, into)
        if choice.finish_reason:
            self._finish(choice.finish_reason)
            return False
        return plain

    def _read_around_choices(self, data: bytes, into: Deltas) -> None:
        """Read what stands beside the choices, and beside the delta, of a chunk whose other content has been read."""
        try:
            rest = around_choices(data)
            if rest.choices and rest.choices[0] != _NOTHING:
                self._add_delta(delta_of(msgspec.to_builtins(rest.choices[0])), None, None, into)
        except (ValueError, RecursionError) as error:
            raise ProviderError(code="provider_bad_response") from error
        if rest.x_groq is None and rest.base_resp is None and rest.citations is None and rest.search_results is None:
            return
        around = {name: getattr(rest, name) for name in _AROUND}
        self._read_around(around)
        raise_found(failure_in(around))

    # ------------------------------------------------------------------------------------------------ the end and usage

    def _finish(self, word: Any) -> None:  # noqa: ANN401 - any JSON
        """Read a finish reason: of several ones the first counts that is not ``stop``."""
        if word == "stop" and self.finish_reason is None and self._calls is None:
            self.finish_reason = "stop"
            return
        reason = finish_of(word)
        if reason == "stop" and self._calls:
            reason = "tool_calls"
        if reason is not None and self.finish_reason in (None, "stop"):
            self.finish_reason = reason
            if reason == "other":
                self.raw_finish_reason = word_of(word)

    def _count_plain(self, usage: ChunkUsage) -> None:
        """Read usage in the vendor's form; one that can't be true, or is one of several, is read as a claim."""
        inputs, outputs = usage.prompt_tokens_details, usage.completion_tokens_details
        cached = written = reasoning = 0
        if inputs is not None:
            cached, written = inputs.cached_tokens, inputs.cache_write_tokens
        if outputs is not None:
            reasoning = outputs.reasoning_tokens
        plain = 0 <= cached <= cached + written <= usage.prompt_tokens <= MAX_TOKENS
        if self.usage is None and plain and 0 <= reasoning < usage.completion_tokens <= MAX_TOKENS:
            self.counted = True
            self.usage = Usage(
                input_tokens=usage.prompt_tokens,
                output_tokens=usage.completion_tokens,
                cached_input_tokens=cached,
                reasoning_tokens=reasoning,
                cache_write_input_tokens=written,
            )
        else:
            self._count(msgspec.to_builtins(usage))

    def _count(self, usage: Any) -> None:  # noqa: ANN401 - any JSON
        claims = self._claims
        if claims is None:
            claims = self._claims = Claims(self.usage)
        self.counted = claims.add(usage) or self.counted
        if claims.seen:
            self.usage = claims.inclusive()

    # ---------------------------------------------------------------------------------------------------- loose reading

    def _feed_loosely(self, data: bytes, into: Deltas) -> None:
        name, stripped = split_name(data)
        if stripped == DONE:
            self.close(into, proper=True)
            return
        if not stripped and name != "error":
            return
        value = decode(stripped) if name != "error" else _decoded(stripped)
        try:
            failed = failure_in(value, name) is not None
            if isinstance(value, dict):
                self._read_object(value, into, failed=failed)
        except RecursionError as error:
            raise ProviderError(code="provider_bad_response") from error
        if not isinstance(value, dict | None) and not failed:
            raise ProviderError(code="provider_bad_response")
        if failed:
            raise_found(failure_in(value, name))

    def _read_object(self, value: dict[str, Any], into: Deltas, *, failed: bool) -> None:
        self.response_id = self.response_id or label_of(value.get("id"))
        self.model = self.model or label_of(value.get("model"))
        if value.get("usage") is not None:
            self._count(value["usage"])
        for choice in first_choices(value, failed=failed):
            self._read_choice(choice, into)
        self._read_around(value)

    def _read_around(self, value: dict[str, Any]) -> None:
        """Read what vendors put beside the choices."""
        groq = value.get("x_groq")
        if isinstance(groq, dict) and groq.get("usage") is not None:
            self._count(groq["usage"])
        if any(value.get(name) for name in LAST):
            self._own_fields().keep_last(value)

    def _read_choice(self, choice: dict[str, Any], into: Deltas) -> None:
        finish = choice.get("finish_reason")
        said = choice.get("message", choice.get("delta"))
        if isinstance(said, dict) and said.get("reasoning_content") == "":
            self._empty_thought = True
        try:
            self._add_delta(delta_of(choice), choice.get("logprobs"), finish, into)
        except ProviderError:
            raise_found(failure_in_choice(choice))
            raise
        if self._half:
            self._decode = no_chunk
        elif self._decode is no_chunk:
            self._decode = first_chunk
        if choice.get("usage") is not None:
            self._count(choice["usage"])
        raise_found(failure_in_choice(choice))
        self._finish(finish)


def _decoded(data: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Decode the data of an error, which may be plain text."""
    try:
        return decode(data)
    except ProviderError:
        return None
