"""OpenAI's chat dialect, the provider's side: the structs of a streamed chunk.

A chunk that has another type at one of these fields, or anything but null where a field is typed as None, is read
loosely. A delta is closed: a field that it does not know may be content.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

NO_INDEX: Final = -1  # of a choice whose place in the list is its index


class PlainDelta(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """What nearly every delta of a vendor has."""

    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Any] | None = None
    reasoning: str | None = None
    role: Literal["assistant"] | None = None


class WideDelta(PlainDelta, gc=False, forbid_unknown_fields=True):
    """A delta with fields that some upstreams send in each chunk, and only seldom with a value."""

    annotations: None = None
    audio: None = None
    citations: None = None
    extra_content: None = None
    function_call: None = None
    images: None = None
    name: None = None
    provider_specific_fields: None = None
    reasoning_details: None = None
    refusal: None = None
    thinking: None = None
    thinking_blocks: None = None
    tool_call_id: None = None


class Logprobs(msgspec.Struct, gc=False):
    """Probabilities of the tokens."""

    content: list[Any] | None = None


class PlainChoice(msgspec.Struct, frozen=True, gc=False):
    """One of the answers."""

    index: int = NO_INDEX
    delta: PlainDelta | None = None
    logprobs: Logprobs | None = None
    finish_reason: str | None = None
    message: None = None
    error: None = None
    usage: None = None
    text: None = None


class WideChoice(PlainChoice, frozen=True, gc=False):
    """A choice with a wide delta."""

    delta: WideDelta | None = None
    content: None = None
    function_call: None = None
    reasoning_content: None = None
    refusal: None = None
    tool_calls: None = None


class InputDetails(msgspec.Struct, gc=False):
    """Tokens of the input by class."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputDetails(msgspec.Struct, gc=False):
    """Tokens of the output by class."""

    reasoning_tokens: int = 0


class ChunkUsage(msgspec.Struct, gc=False):
    """Usage in the vendor's form."""

    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: InputDetails | None = None
    completion_tokens_details: OutputDetails | None = None
    input_tokens: None = None
    cached_tokens: None = None
    prompt_cache_hit_tokens: None = None


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """A chunk after the first one."""

    choices: Sequence[PlainChoice] | None = None
    usage: ChunkUsage | None = None
    error: None = None
    error_code: None = None


class WideChunk(Chunk, frozen=True, gc=False):
    """A chunk with wide deltas."""

    choices: Sequence[WideChoice] | None = None


class FirstChunk(WideChunk, frozen=True, gc=False):
    """A chunk whose id and model are looked for. It is read loosely where it has a field of ``Around``."""

    id: str | None = None
    model: str | None = None
    x_groq: None = None
    base_resp: None = None
    citations: None = None
    search_results: None = None


class AroundChoice(msgspec.Struct, gc=False):
    """What some upstreams put beside the delta."""

    content: Any = None
    function_call: Any = None
    reasoning_content: Any = None
    refusal: Any = None
    tool_calls: Any = None


class Around(msgspec.Struct, gc=False):
    """What vendors put beside the choices or beside the delta, in chunks without text or in the last one."""

    choices: list[AroundChoice] = []
    x_groq: Any = None
    base_resp: Any = None
    citations: Any = None
    search_results: Any = None


NO_CHOICES: Final = Chunk()

plain_chunk = msgspec.json.Decoder(Chunk).decode
wide_chunk = msgspec.json.Decoder(WideChunk).decode
first_chunk = msgspec.json.Decoder(FirstChunk).decode
around_choices = msgspec.json.Decoder(Around).decode


def no_chunk(_data: bytes) -> Chunk:
    """Refuse a chunk that has to be read loosely: the first half of a surrogate pair waits for it."""
    raise ValueError
