"""Usage as upstreams claim it: numbers of any form, under the names of all vendors."""

import math
from collections.abc import Sequence
from typing import Any, Final

from protocol.llm import Usage

MAX_TOKENS: Final = 2**53  # the largest count that is read: beyond it JSON's readers disagree

_INPUT: Final = ("prompt_tokens", "input_tokens")
_OUTPUT: Final = ("completion_tokens", "output_tokens")
_CACHED: Final = ("prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens")
_WRITTEN: Final = ("cache_creation_input_tokens",)
_INPUT_DETAILS: Final = ("prompt_tokens_details", "input_tokens_details")
_OUTPUT_DETAILS: Final = ("completion_tokens_details", "output_tokens_details")
COUNTS: Final = frozenset(
    {*_INPUT, *_OUTPUT, *_CACHED, *_WRITTEN, *_INPUT_DETAILS, *_OUTPUT_DETAILS, "total_tokens"}
)  # the names of what is read of usage


def count_of(value: Any) -> int:  # noqa: ANN401 - any JSON
    """Return a count of tokens: an integer, also as an integral float or as text; 0 for anything else."""
    if isinstance(value, str):
        try:
            value = float(value) if len(value) <= len(str(MAX_TOKENS)) else 0
        except ValueError:
            return 0
    if isinstance(value, float):
        value = int(value) if math.isfinite(value) and value.is_integer() else 0
    if isinstance(value, bool) or not isinstance(value, int):
        return 0
    return value if 0 < value <= MAX_TOKENS else 0


class Claims:
    """Adds up what an answer claims of its usage, wherever it says so. A later 0 never replaces a count.

    Args:
        known: the usage so far, with the cache's tokens in its input; None for none.

    Attributes:
        input: tokens of input, as the dialect counts them.
        output: tokens of output.
        cached: read from the provider's cache.
        written: written to it.
        reasoning: of the reasoning.
        seen: whether anything was claimed.
    """

    __slots__ = ("cached", "input", "output", "reasoning", "seen", "written")

    def __init__(self, known: Usage | None = None) -> None:
        usage = known or Usage()
        self.input, self.output = usage.input_tokens, usage.output_tokens
        self.cached, self.written = usage.cached_input_tokens, usage.cache_write_input_tokens
        self.reasoning = usage.reasoning_tokens
        self.seen = known is not None

    def add(self, usage: Any) -> bool:  # noqa: ANN401 - any JSON
        """Add an object of counts. Anything else, and what can't be a count, is ignored.

        Returns:
            Whether it counts the output.
        """
        if not isinstance(usage, dict) or not usage:
            return False
        inputs, outputs = _details(usage, _INPUT_DETAILS), _details(usage, _OUTPUT_DETAILS)
        output = _first(usage, _OUTPUT)
        reasoning = _first(outputs, ("reasoning_tokens", "thinking_tokens"))
        self.input = _first(usage, _INPUT) or self.input
        self.cached = _first(usage, _CACHED) or _first(inputs, ("cached_tokens",)) or self.cached
        self.written = _first(usage, _WRITTEN) or _first(inputs, ("cache_write_tokens",)) or self.written
        self.reasoning = reasoning or self.reasoning
        if output and reasoning and count_of(usage.get("total_tokens")) == _first(usage, _INPUT) + output + reasoning:
            output += reasoning  # an upstream that counts the reasoning beside the output
        self.output = output or self.output
        self.seen = True
        return output > 0

    def inclusive(self) -> Usage:
        """Return the usage where ``input`` has the cache's tokens in it: at most all of it are of the cache."""
        cached = min(self.cached, self.input)
        return self._usage(self.input, cached, min(self.written, self.input - cached))

    def exclusive(self) -> Usage:
        """Return the usage where the cache's tokens come on top of ``input``."""
        return self._usage(self.input + self.cached + self.written, self.cached, self.written)

    def _usage(self, total: int, cached: int, written: int) -> Usage:
        return Usage(
            input_tokens=total,
            output_tokens=self.output,
            cached_input_tokens=cached,
            reasoning_tokens=min(self.reasoning, self.output),
            cache_write_input_tokens=written,
        )


def _details(usage: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    for name in names:
        details = usage.get(name)
        if isinstance(details, dict):
            return details
    return {}


def _first(counts: dict[str, Any], names: Sequence[str]) -> int:
    for name in names:
        count = count_of(counts.get(name))
        if count:
            return count
    return 0
