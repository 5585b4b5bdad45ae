"""Requests that are longer than the model's context: recognised in upstreams' words, and said in each vendor's."""

import re
from typing import Final

import msgspec

CONTEXT_LENGTH: Final = "context_length_exceeded"  # our code of such a request

_CONTEXT: Final = re.compile(
    r"""
      prompt\ is\ too\ long
    | (?:input|prompt|request|conversation|message)s?\ (?:is|was|are)\ too\ (?:long|large)\ for\b
    | (?:maximum|max)\ (?:context|prompt|input|sequence|model)\ (?:length|window|size)
    | maximum\ context\ length
    | (?:max|maximum)\ input\ tokens
    | context\ limit:\ \d
    | exceed(?:s|ed|ing)?\ (?:the\ |this\ |its\ |our\ )*(?:model'?s?\ |maximum\ |max\ |available\ |allowed\ )*
        (?:context|prompt|input|sequence|model\ token)[ _](?:length|window|size|limit)
    | context[ _](?:length|window|size)[ _](?:has\ been\ |was\ |is\ )?exceed
    | context\ (?:the\ )?overflow
    | (?:greater|longer)\ than\ (?:the\ |this\ )?(?:model'?s\ )?context\ length
    | context\ length\ (?:is|of)\ only\ \d+
    | input\ token\ count\b.{0,60}?(?:exceeds\ the\ maximum|only\ supports)
    | token\ count\ of\ [\d,]+\ exceeds
    | input\ tokens\ \(?[\d,]+\)?\ (?:cannot\ )?exceeds?
    | too\ many\ (?:input\ |prompt\ )?tokens:?\ (?!please\ wait|per\b|in\b)
    | prompt\ exceeds\ max
    | must\ have\ less\ than\ \d+\ tokens
    | tokens`?\ \+\ `?max_new_tokens`?\ must\ be
    | range\ of\ input\ length\ should\ be
    | reduce\ the\ length\ of\ (?:the\ |your\ )?(?:messages|prompt|input|conversation|either)
    """,
    re.IGNORECASE | re.VERBOSE,
)
WORDS: Final = frozenset(
    {
        "context_length_exceeded",
        "context_window_exceeded",
        "contextwindowexceedederror",
        "exceed_context_size_error",
        "input_too_long",
        "model_context_window_exceeded",
        "prompt_too_long",
        "tokens_limit_reached",
        "1261",
    }
)
"""Codes of upstreams, in lower case; 1261 is GLM's."""

_MAX_DIGITS: Final = 12
_ANTHROPICS: Final = re.compile(r"prompt is too long: \d+ tokens? > \d|exceed context limit: \d+ \+ \d+ > \d")


def _patterns(*texts: str) -> tuple[re.Pattern[str], ...]:
    """Compile patterns in which ``#`` is the number."""
    return tuple(re.compile(text.replace("#", r"([\d,]*\d)"), re.IGNORECASE) for text in texts)


_MAXIMUM: Final = _patterns(
    r"tokens? > #",
    r"context limit: [\d,]+ \+ [\d,]+ > #",
    r"(?:context|prompt|input|sequence|model) (?:length|window|size)(?: is| of|:)? (?:only )?\(?#",
    r"# maximum context length",
    r"tokens allowed \(#\)",
    r"token limit: #",
    r"cannot exceed (?:the total tokens limit )?#",
    r"exceeds the limit of #",
    r"only supports up to #",
    r"less than # tokens",
    r"must be <= #",
    r"limit is #",
    r"should be \[\d+, ?#\]",
    r"(?:max|maximum) (?:input tokens|size)(?: is|:)? #",
)
_INPUT: Final = _patterns(
    r"# in the (?:messages|prompt|input)", r"# of text input", r"# input tokens", r"context limit: # \+"
)
_TOTAL: Final = _patterns(
    r"# tokens? >",
    r"resulted in #",
    r"requested (?:about )?# tokens",
    r"requested tokens \(#\)",
    r"\(requested: #\)",
    r"token count (?:is |of )?\(?#",
    r"token count: #",
    r"(?:contains|has) # tokens",
    r"(?:request|input|prompt|prompt length) \(#(?: tokens)?\)",
    r"given: #",
    r"received #",
    r"input tokens \(?#",
    r"(?:prompt|input) is # tokens",
    r"current length is #",
    r"too long: #,",
)
_ANSWER: Final = _patterns(r"# in the (?:completion|output)", r"is too large: #", r"context limit: [\d,]+ \+ #")


class ContextSize(msgspec.Struct, frozen=True):
    """What a refusal says about sizes, in tokens; None for what it does not say.

    Attributes:
        maximum: the model's context.
        total: of the request: its input, or input and answer together.
        input: of its input alone.
        answer: what it asks for as the answer.
    """

    maximum: int | None = None
    total: int | None = None
    input: int | None = None
    answer: int | None = None


def is_context_length(text: str) -> bool:
    """Return whether an upstream's message says that the request is longer than the model's context."""
    return _CONTEXT.search(text) is not None


def size_of(message: str) -> ContextSize:
    """Return the sizes in an upstream's message."""
    tokens, answer = _find(_INPUT, message), _find(_ANSWER, message)
    total = _find(_TOTAL, message)
    if tokens is not None and answer is not None and total is None:
        total = tokens + answer
    return ContextSize(_find(_MAXIMUM, message), total if total is not None else tokens, tokens, answer)


def sizes_in_words(message: str, total: int | None, maximum: int | None) -> str:
    """Return ``message`` with the sizes that the refusal has in fields of their own, where it has none itself."""
    if total is None or maximum is None or size_of(message).maximum is not None:
        return message
    return f"{message} ({total} tokens > {maximum} maximum)".lstrip()


def in_openai_words(message: str) -> str:
    """Return the message in OpenAI's words, which agents look for, as far as its numbers are known."""
    if "maximum context length is" in message:
        return message
    size = size_of(message)
    if size.maximum is None:
        return message
    start = f"This model's maximum context length is {size.maximum} tokens."
    if size.total is None or size.total <= size.maximum:
        return f"{start} {message}"
    if size.input is not None and size.answer is not None:
        parts = f"({size.input} in the messages, {size.answer} in the completion)"
        return f"{start} However, you requested {size.total} tokens {parts}."
    return f"{start} However, your messages resulted in {size.total} tokens."


def in_anthropic_words(message: str) -> str:
    """Return the message in Anthropic's words, which agents look for, as far as its numbers are known."""
    if _ANTHROPICS.search(message) is not None:
        return message
    size = size_of(message)
    if size.maximum is not None:
        if size.input is not None and size.answer is not None and size.input <= size.maximum:
            sums = f"{size.input} + {size.answer} > {size.maximum}"
            advice = "decrease input length or `max_tokens` and try again"
            return f"input length and `max_tokens` exceed context limit: {sums}, {advice}"
        tokens = size.total if size.input is None else size.input
        if tokens is not None and tokens > size.maximum:
            return f"prompt is too long: {tokens} tokens > {size.maximum} maximum"
    return message if "prompt is too long" in message else f"prompt is too long: {message}"


def _find(patterns: tuple[re.Pattern[str], ...], message: str) -> int | None:
    for pattern in patterns:
        found = pattern.search(message)
        if found is not None:
            digits = found[1].replace(",", "")
            return int(digits) if len(digits) <= _MAX_DIGITS else None
    return None
