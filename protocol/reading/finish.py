"""Finish reasons of all vendors. A reason that is not known is never taken for a good one."""

import re
from typing import Any, Final

from protocol.errors import ProviderError
from protocol.llm import FinishReason
from protocol.reading.loose import text_of, whole_characters

MAX_REASON: Final = 64  # characters of an upstream's own word that are kept

_WORDS: Final[dict[FinishReason, tuple[str, ...]]] = {
    "stop": (
        "complete",
        "end_turn",
        "eos",
        "eos_found",
        "eos_token",
        "pause_turn",
        "stop",
        "stop_sequence",
        "stop_string_found",
    ),
    "length": (
        "context_length",
        "context_length_exceeded",
        "context_length_reached",
        "context_limit",
        "context_window",
        "context_window_exceeded",
        "error_limit",  # Cohere: the model's context
        "length",
        "length_exceeded",
        "length_limit",
        "max_completion_tokens",
        "max_context_length",
        "max_length",
        "max_length_reached",
        "max_new_tokens",
        "max_output_tokens",
        "max_predicted_tokens_reached",
        "max_tokens",
        "max_tokens_exceeded",
        "max_tokens_reached",
        "model_context_window_exceeded",
        "model_length",
        "token_limit",
        "token_limit_reached",
        "truncated",
    ),
    "tool_calls": ("tool_calls", "tool_call", "tool_use", "tooluse", "function_call"),
    "content_filter": (
        "blocklist",
        "content_filter",
        "content_filtered",
        "error_toxic",  # Cohere
        "guardrail_intervened",
        "image_prohibited_content",
        "image_recitation",
        "image_safety",
        "model_armor",
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
        "malformed_model_output",
        "malformed_response",
        "malformed_tool_use",
        "missing_thought_signature",
        "model_unloaded",
        "timeout",
        "too_many_tool_calls",
        "unexpected_tool_call",
        "user_cancel",
        "user_stopped",
    }
)
_HUMPS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def finish_of(value: Any) -> FinishReason | None:  # noqa: ANN401 - any JSON
    """Return the canonical reason of an upstream's; ``other`` for one that is not known, None for none.

    Case and dashes don't matter, and words may be joined as in ``maxTokens``.

    Raises:
        ProviderError: ``provider_error``: the reason says that the answer broke off.
    """
    if not value:
        return None
    if not isinstance(value, str):
        return "other"
    if value in _REASONS:
        return _REASONS[value]
    word = _HUMPS.sub("_", value.strip()).lower().replace("-", "_")
    word = word.removeprefix("finishreason.").removeprefix("finish_reason.")
    if word in _NONE:
        return None
    if word in _REASONS:
        return _REASONS[word]
    if word in _BROKEN or "error" in word.split("_"):
        raise ProviderError(code="provider_error")
    return "other"


def word_of(value: Any) -> str:  # noqa: ANN401 - any JSON
    """Return an upstream's reason as text that is safe to show: printable, and bounded."""
    text = value if isinstance(value, str) else text_of(value) or type(value).__name__
    return "".join(filter(str.isprintable, whole_characters(text)[:MAX_REASON]))
