"""Finish reasons of all vendors. A reason that is not known is never taken for a good one."""

from typing import Any, Final

from protocol.errors import ProviderError
from protocol.llm import FinishReason
from protocol.reading.loose import text_of, whole_characters

MAX_REASON: Final = 64  # characters of an upstream's own word that are kept

_WORDS: Final[dict[FinishReason, tuple[str, ...]]] = {
    "stop": ("stop", "end_turn", "stop_sequence", "pause_turn", "eos", "eos_token", "complete"),
    "length": (
        "length",
        "length_limit",
        "max_completion_tokens",
        "max_length",
        "max_new_tokens",
        "max_output_tokens",
        "max_tokens",
        "max_tokens_reached",
        "model_context_window_exceeded",
        "model_length",
        "token_limit",
        "truncated",
    ),
    "tool_calls": ("tool_calls", "tool_call", "tool_use", "tooluse", "function_call"),
    "content_filter": (
        "blocklist",
        "content_filter",
        "content_filtered",
        "guardrail_intervened",
        "image_safety",
        "prohibited_content",
        "recitation",
        "refusal",
        "safety",
        "sensitive",
        "spii",
    ),
}
_REASONS: Final[dict[str, FinishReason]] = {word: reason for reason, words in _WORDS.items() for word in words}
_NONE: Final = frozenset({"", "null", "none", "undefined", "false"})
_BROKEN: Final = frozenset(
    {
        "abort",
        "aborted",
        "canceled",
        "cancelled",
        "failed",
        "failure",
        "insufficient_system_resource",
        "malformed_function_call",
        "timeout",
        "unexpected_tool_call",
    }
)


def finish_of(value: Any) -> FinishReason | None:  # noqa: ANN401 - any JSON
    """Return the canonical reason of an upstream's; ``other`` for one that is not known, None for none.

    Case and dashes don't matter.

    Raises:
        ProviderError: ``provider_error``: the reason says that the answer broke off.
    """
    if not value:
        return None
    if not isinstance(value, str):
        return "other"
    if value in _REASONS:
        return _REASONS[value]
    word = value.strip().lower().replace("-", "_").removeprefix("finishreason.")
    if word in _NONE:
        return None
    if word in _BROKEN or "error" in word.split("_"):
        raise ProviderError(code="provider_error")
    return _REASONS.get(word, "other")


def word_of(value: Any) -> str:  # noqa: ANN401 - any JSON
    """Return an upstream's reason as text that is safe to show: printable, and bounded."""
    text = value if isinstance(value, str) else text_of(value) or type(value).__name__
    return "".join(filter(str.isprintable, whole_characters(text)[:MAX_REASON]))
