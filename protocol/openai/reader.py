"""OpenAI's chat dialect, the provider's side: reads the chunks of a streamed answer, and whole answers.

A chunk as the vendor sends it is decoded into structs. Anything else is read loosely: fields of other types, under
other names, or at other places. What can't be read, and what nobody needs, is dropped. An upstream's error text is
never passed on.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal

import msgspec

from protocol.errors import ProviderError
from protocol.events import Delta, ReasoningDelta, RefusalDelta, VendorBlock
from protocol.llm import Extra, FinishReason, Usage
from protocol.openai.calls import CallReader, may_begin
from protocol.reading.claims import MAX_TOKENS, Claims
from protocol.reading.failures import failure_in
from protocol.reading.finish import finish_of, word_of
from protocol.reading.loose import clean, decode, encode, place_of, split_half, split_name, text_of
from protocol.upstream import Deltas

DONE: Final = b"[DONE]"
MAX_KEPT_BYTES: Final = 4 * 1024 * 1024  # of fields that are given on when the answer, or a part of it, ends
_DIALECT: Final = "openai"
_KEPT: Final = ("annotations", "citations", "search_results")  # of a message or a chunk, whose last value counts
_AROUND: Final = ("x_groq", "base_resp", "citations", "search_results")  # beside the choices
_HALF: Final = "\ufffd"
_json = msgspec.json.Encoder().encode

Kind = Literal["text", "reasoning", "refusal", ""]

# A chunk that has what is typed as None, or another type, is read loosely. The fields of ``_Rest`` come in chunks
# without text, or in the last one, and are looked for there.


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] | None = None
    annotations: None = None
    extra_content: None = None


class _Logprobs(msgspec.Struct, gc=False):
    content: list[Any] | None = None


class _Choice(msgspec.Struct, frozen=True, gc=False):
    index: int = 0
    delta: _Delta | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None
    message: None = None
    error: None = None
    usage: None = None


class _InputDetails(msgspec.Struct, gc=False):
    cached_tokens: int = 0
    cache_write_tokens: int = 0


class _OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int = 0


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    input_tokens: None = None
    cached_tokens: None = None
    prompt_cache_hit_tokens: None = None


class _Chunk(msgspec.Struct, frozen=True, gc=False):
    choices: Sequence[_Choice] | None = None
    usage: _Usage | None = None
    error: None = None


class _FirstDelta(_Delta, gc=False):
    refusal: None = None
    reasoning_details: None = None
    function_call: None = None


class _FirstChoice(_Choice, frozen=True, gc=False):
    delta: _FirstDelta | None = None


class _FirstChunk(_Chunk, frozen=True, gc=False):
    """A chunk whose id and model are looked for. It is read loosely where it has a field of ``_Rest``."""

    choices: Sequence[_FirstChoice] | None = None
    id: str | None = None
    model: str | None = None
    x_groq: None = None
    base_resp: None = None
    citations: None = None
    search_results: None = None


class _RestDelta(msgspec.Struct, gc=False):
    reasoning: Any = None
    reasoning_content: Any = None
    refusal: Any = None
    reasoning_details: Any = None
    function_call: Any = None


class _RestChoice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _RestDelta | None = None


class _Rest(msgspec.Struct, gc=False):
    choices: list[_RestChoice] | None = None
    x_groq: Any = None
    base_resp: Any = None
    citations: Any = None
    search_results: Any = None


_chunk = msgspec.json.Decoder(_Chunk).decode
_rest = msgspec.json.Decoder(_Rest).decode
_first_chunk = msgspec.json.Decoder(_FirstChunk).decode


def _only_loosely(_data: bytes) -> _Chunk:
    """Refuse a chunk that has to be read loosely: the first half of a surrogate pair waits for it."""
    raise ValueError


class ChatReader:
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
        "_calls",
        "_claims",
        "_decode",
        "_details",
        "_half",
        "_kept",
        "_kept_bytes",
        "_kind",
        "_next",
        "_part",
        "counted",
        "ended",
        "finish_reason",
        "model",
        "raw_finish_reason",
        "refused",
        "response_id",
        "stop_sequence",
        "usage",
    )

    def __init__(self) -> None:
        self.finish_reason: FinishReason | None = None
        self.raw_finish_reason = ""
        self.refused = False
        self.stop_sequence = ""
        self.usage: Usage | None = None
        self.counted = False
        self.model = ""
        self.response_id = ""
        self.ended = False
        self._decode: Callable[[bytes], _Chunk] = _first_chunk
        self._kind: Kind = ""  # of the last part, while more of it may come
        self._part = 0  # its index
        self._next = 0  # the index of the next part
        self._half = ""  # the first half of a surrogate pair at the end of the last piece
        self._calls: CallReader | None = None
        self._claims: Claims | None = None
        self._kept: dict[str, Any] = {}
        self._kept_bytes = 0
        self._details: list[dict[str, Any]] = []

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
            self._feed_loosely(data, into)
            return
        choices = chunk.choices
        if choices:
            for choice in choices:
                delta = choice.delta
                if (
                    delta is not None
                    and delta.content
                    and self._kind == "text"
                    and not (choice.index or choice.finish_reason or choice.logprobs)
                    and not (delta.reasoning_content or delta.reasoning or delta.tool_calls)
                ):  # more of a text and nothing else, as nearly every chunk is
                    into.append(Delta(text=delta.content, part=self._part))
                elif choice.index == 0 and not self._read(choice, into) and self.response_id:
                    self._read_rest(data, into)
        elif chunk.usage is None:
            self._feed_loosely(data, into)
        if chunk.usage is not None:
            self._count_plain(chunk.usage)
        if not self.response_id:
            self._begin_answer(chunk)

    def close(self, into: Deltas, *, proper: bool) -> None:
        """Read the end of the stream, and append the content that waited for it to ``into``. Idempotent.

        Raises:
            ProviderError: ``provider_bad_response``: a tool call has no name.
        """
        if proper:
            self.ended = True
        elif not self.ended and not self.whole:
            return
        if self._calls is None and not (self._half or self._kept or self._details):
            return
        if self._calls is not None:
            self._calls.close(into)
        self._end_part(into)
        kept, self._kept = self._kept, {}
        for name, value in kept.items():
            self._block({name: value}, into)

    def _begin_answer(self, chunk: _Chunk) -> None:
        """Take over the id and the model, which are the same in all chunks."""
        if isinstance(chunk, _FirstChunk):
            self.response_id = chunk.id or self.response_id
            self.model = chunk.model or self.model
            if self.response_id:
                self._decode = _chunk

    def _read(self, choice: _Choice, into: Deltas) -> bool:
        """Append the content of a chunk; False where the chunk may have a rare field, too."""
        delta = choice.delta
        plain = False
        if delta is not None:
            thought = delta.reasoning_content or delta.reasoning
            if thought:
                if self._kind != "reasoning":
                    self._begin("reasoning", into)
                into.append(ReasoningDelta(text=thought, part=self._part))
            text = delta.content
            if choice.logprobs is not None and choice.logprobs.content:
                self._add_text(text or "", choice.logprobs.content, into)
            elif text:
                plain = True
                if self._kind != "text":
                    self._begin("text", into)
                into.append(Delta(text=text, part=self._part))
            if delta.tool_calls:
                plain = True
                self._add_calls(delta.tool_calls, into)
        if choice.finish_reason:
            self._finish(choice.finish_reason)
            return False
        return plain

    def _read_rest(self, data: bytes, into: Deltas) -> None:
        """Read the rare fields of a chunk whose other content has been read."""
        rest = _rest(data)
        for choice in rest.choices or ():
            delta = choice.delta
            if delta is None or choice.index != 0:
                continue
            if delta.refusal or delta.reasoning_details or delta.function_call:
                self._read_rare(msgspec.to_builtins(delta), into)
        if rest.x_groq is None and rest.base_resp is None and rest.citations is None and rest.search_results is None:
            return
        around = {name: getattr(rest, name) for name in _AROUND}
        self._read_around(around)
        failure = failure_in(around)
        if failure is not None:
            raise failure

    # ------------------------------------------------------------------------------------------------------- the parts

    def _begin(self, kind: Kind, into: Deltas) -> None:
        """Begin a part: what waited for the end of the one before is given on."""
        if self._kind or self._calls is not None or self._details:
            self._end_part(into)
        self._kind = kind
        self._part = self._next
        self._next += 1

    def _end_part(self, into: Deltas) -> None:
        """End the last part: no more of it can come."""
        if self._half:
            self._half = ""
            self._piece(self._kind, _HALF, into)
        if self._calls is not None and self._calls.holds:
            self._calls.release(into)
        self._kind = ""
        if self._details:
            details, self._details = self._details, []
            self._block({"reasoning_details": details}, into)

    def _piece(self, kind: Kind, text: str, into: Deltas) -> None:
        """Append a piece to the last part, which is of this kind."""
        if kind == "text":
            into.append(Delta(text=text, part=self._part))
        elif kind == "reasoning":
            into.append(ReasoningDelta(text=text, part=self._part))
        else:
            into.append(RefusalDelta(text=text, part=self._part))

    def _add_text(self, text: str, logprobs: list[Any], into: Deltas) -> None:
        if self._kind != "text":
            self._begin("text", into)
        into.append(Delta(text=text, logprobs=_json(logprobs).decode(), part=self._part))

    def _add_calls(self, entries: list[Any], into: Deltas) -> None:
        calls = self._calls
        if calls is None:
            calls = self._calls = CallReader()
        for entry in entries:
            if (self._kind or self._details) and may_begin(entry):
                self._end_part(into)
            if calls.add(entry, self._next, into):
                self._next += 1
                if self.finish_reason == "stop":
                    self.finish_reason, self.raw_finish_reason = "tool_calls", ""

    def _block(self, fields: dict[str, Any], into: Deltas) -> None:
        """Append fields of this dialect alone as a part of their own."""
        into.append(VendorBlock(dialect=_DIALECT, value=msgspec.Raw(encode(fields)), part=self._next))
        self._next += 1

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

    def _count_plain(self, usage: _Usage) -> None:
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
        failure = failure_in(value, name)
        if isinstance(value, dict):
            try:
                self._read_object(value, into)
            except RecursionError as error:
                raise ProviderError(code="provider_bad_response") from error
        elif value is not None and failure is None:
            raise ProviderError(code="provider_bad_response")
        if failure is not None:
            raise failure

    def _read_object(self, value: dict[str, Any], into: Deltas) -> None:
        self.response_id = self.response_id or clean(text_of(value.get("id")))
        self.model = self.model or clean(text_of(value.get("model")))
        if value.get("usage") is not None:
            self._count(value["usage"])
        choices = value.get("choices")
        if not isinstance(choices, list | None):
            raise ProviderError(code="provider_bad_response")
        for choice in choices or ():
            if isinstance(choice, dict) and not place_of(choice.get("index")):
                self._read_choice(choice, into)
        self._read_around(value)

    def _read_around(self, value: dict[str, Any]) -> None:
        """Read what vendors put beside the choices."""
        groq = value.get("x_groq")
        if isinstance(groq, dict) and groq.get("usage") is not None:
            self._count(groq["usage"])
        self._keep(value)

    def _read_choice(self, choice: dict[str, Any], into: Deltas) -> None:
        delta = choice.get("delta")
        if delta is None:
            delta = choice.get("message")
        if isinstance(delta, dict):
            self._read_delta(delta, choice.get("logprobs"), into)
        if choice.get("usage") is not None:
            self._count(choice["usage"])
        failure = failure_in({"error": choice.get("error")})
        if failure is not None:
            raise failure
        self._finish(choice.get("finish_reason"))

    def _read_delta(self, delta: dict[str, Any], logprobs: Any, into: Deltas) -> None:  # noqa: ANN401 - any JSON
        thought = _pieces(delta.get("reasoning_content"), "reasoning") or _pieces(delta.get("reasoning"), "reasoning")
        for piece in thought:
            self._add_loosely(*piece, into)
        self._read_rare(delta, into)
        content = _pieces(delta.get("content"), "text")
        probabilities = logprobs.get("content") if isinstance(logprobs, dict) else None
        if isinstance(probabilities, list) and probabilities:
            text = "".join(text for kind, text in content if kind == "text")
            self._add_text(clean(self._taken_half("text") + text), clean(probabilities), into)
            content = [piece for piece in content if piece[0] != "text"]
        for piece in content:
            self._add_loosely(*piece, into)
        calls = delta.get("tool_calls")
        if calls:
            self._add_calls(calls if isinstance(calls, list) else [calls], into)
        self._keep(delta)
        if isinstance(delta.get("extra_content"), dict):
            self._end_part(into)
            self._block({"extra_content": delta["extra_content"]}, into)

    def _read_rare(self, delta: dict[str, Any], into: Deltas) -> None:
        """Read details of the reasoning, a refusal, and a call in its old form."""
        details, legacy = delta.get("reasoning_details"), delta.get("function_call")
        if isinstance(details, list):
            thought = delta.get("reasoning_content") or delta.get("reasoning")
            for piece in () if thought else _pieces(details, "reasoning"):
                self._add_loosely(*piece, into)
            self._add_details(details)
        for piece in _pieces(delta.get("refusal"), "refusal"):
            self._add_loosely(*piece, into)
        if isinstance(legacy, dict) and not delta.get("tool_calls"):
            self._add_calls([{"function": legacy}], into)

    def _add_loosely(self, kind: Kind, text: str, into: Deltas) -> None:
        """Append a piece, which may have halves of surrogate pairs."""
        if self._kind != kind:
            if not text:
                return
            self._begin(kind, into)
        if kind == "refusal" and text:
            self.refused = True
        text, self._half = split_half(self._half + text)
        if self._half:
            self._decode = _only_loosely
        elif self._decode is _only_loosely:
            self._decode = _first_chunk
        if text:
            self._piece(kind, text, into)

    def _taken_half(self, kind: Kind) -> str:
        """Return the half of a pair that waits in a part of this kind, and forget it."""
        if self._kind != kind:
            return ""
        half, self._half = self._half, ""
        return half

    def _keep(self, value: dict[str, Any]) -> None:
        """Keep the fields whose last value counts until the end."""
        for name in _KEPT:
            kept = value.get(name)
            if kept:
                self._bound(kept)
                self._kept[name] = kept

    def _add_details(self, details: list[Any]) -> None:
        """Add details of the reasoning: pieces of one entry are joined."""
        for detail in details:
            if not isinstance(detail, dict):
                continue
            self._bound(detail)
            last = self._details[-1] if self._details else {}
            joins = last and all(last.get(key) == detail.get(key) for key in ("type", "index")) and "index" in detail
            if not joins:
                self._details.append(dict(detail))
                continue
            for key, item in detail.items():
                grows = key in ("text", "summary", "data") and isinstance(item, str) and isinstance(last.get(key), str)
                if item is not None:
                    last[key] = last[key] + item if grows else item

    def _bound(self, value: Any) -> None:  # noqa: ANN401 - any JSON
        self._kept_bytes += len(encode(value))
        if self._kept_bytes > MAX_KEPT_BYTES:
            raise ProviderError(code="response_too_large")


def _decoded(data: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Decode the data of an error, which may be plain text."""
    try:
        return decode(data)
    except ProviderError:
        return None


def _pieces(value: Any, kind: Kind) -> list[tuple[Kind, str]]:  # noqa: ANN401 - any JSON
    """Return the texts in ``value`` with their kinds: a text, a number, a part, or a list of them."""
    return [*_walk(value, kind)]


def _walk(value: Any, kind: Kind) -> Iterator[tuple[Kind, str]]:  # noqa: ANN401 - any JSON
    if isinstance(value, list):
        for item in value:
            yield from _walk(item, kind)
    elif isinstance(value, dict):
        named = text_of(value.get("type"))
        if named == "refusal":
            yield from _walk(value.get("refusal"), "refusal")
        elif named.startswith(("thinking", "reasoning")):
            inner = next(
                (value[name] for name in ("thinking", "reasoning", "summary", "text") if value.get(name)), None
            )
            yield from _walk(inner, "reasoning")
        else:
            yield from _walk(value.get("text"), kind)
    elif text := text_of(value):
        yield kind, text
