"""Which fields of a vendor's dialect go upstream: those that are listed, and never by default one that chooses.

A field that chooses a model, a route, a provider or a price, or that reaches what belongs to the upstream's account,
passes only where a list has its whole name. Fields that the service knows are no matter of these lists.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec

from protocol.llm import ChatRequest, Tool, Vendor
from protocol.vendor_extras import vendor_of

DEFAULT: Final = "default"  # an entry of a list: all of ``PASSED``
MAX_NAMED: Final = 16  # fields that a warning names
MAX_NAME: Final = 64  # characters of a field's name in a warning
BETAS: Final = "anthropic_beta"
KNOWN: Final = frozenset({"output_config", "response_format", "tool_choice"})  # what the service makes of known fields

PASSED: Final = frozenset(
    {
        "add_generation_prompt", "add_special_tokens", "allowed_token_ids", "audio", "bad_words", "cache_control",
        "cache_prompt", "chat_template_kwargs", "citation_options", "citations", "context_management",
        "continue_final_message", "documents", "dry_allowed_length", "dry_base", "dry_multiplier",
        "dry_penalty_last_n", "dry_sequence_breakers", "dynatemp_exponent", "dynatemp_range", "echo",
        "enable_thinking", "eos_token_id", "frequency_penalty", "function_call", "functions", "grammar",
        "guided_choice", "guided_decoding_backend", "guided_grammar", "guided_json", "guided_regex",
        "guided_whitespace_pattern", "ignore_eos", "include_reasoning", "include_stop_str_in_output", "input_type",
        "instruction", "instructions", "json_schema", "late_chunking", "length_penalty", "logit_bias", "logprobs",
        "max_thinking_tokens", "max_tool_calls", "metadata", "min_p", "min_tokens", "mirostat", "mirostat_eta",
        "mirostat_tau", "modalities", "n_probs", "no_repeat_ngram_size", "normalize", "normalized",
        "parallel_tool_calls", "penalize_nl", "prediction", "presence_penalty", "prompt_cache_key",
        "prompt_cache_retention", "prompt_mode", "prompt_name", "random_seed", "reasoning", "reasoning_budget",
        "reasoning_effort", "reasoning_format", "reasoning_split", "repeat_last_n", "repeat_penalty",
        "repetition_penalty", "return_images", "return_related_questions", "safe_prompt", "safety_identifier",
        "search_domain_filter", "search_mode", "search_parameters", "search_recency_filter", "skip_special_tokens",
        "smoothing_curve", "smoothing_factor", "spaces_between_special_tokens", "stop_token_ids",
        "structured_outputs", "task", "task_type", "temperature_last", "text", "tfs_z", "thinking", "thinking_budget",
        "thinking_config", "title", "tool_stream", "top_a", "top_k", "top_logprobs", "top_n_sigma", "truncate",
        "truncate_prompt_tokens", "typical_p", "user", "user_id", "verbosity", "web_search_options",
        "xtc_probability", "xtc_threshold",
    }
)  # fmt: skip
"""What passes by default: sampling, forms of the answer, labels; and the vendors' features and hosted tools."""

CHOOSING: Final = frozenset(
    {
        "adapter", "adapter_id", "api_base", "api_key", "api_version", "base_url", "cached_content",
        "compound_custom", "container", "deployment", "enable_search", "extra_body", "extra_headers", "extra_query",
        "fallback", "fallback_model", "fallback_models", "fallbacks", "id_slot", "inference_geo", "keep_alive",
        "kv_transfer_params", "lora", "lora_request", "mcp_servers", "model", "models", "organization", "plugins",
        "preset", "priority", "project", "prompt", "provider", "providers", "region", "route", "router", "routing",
        "service_tier", "speed", "store", "transforms",
    }
)  # fmt: skip
CHOOSING_PATTERNS: Final = (
    "betas.context-1m-*",  # a price of its own
    "betas.fast-mode-*",
    "tools.mcp*",  # servers that the upstream calls on its account
)
WITHIN: Final = frozenset({"model", "models", "provider", "server_url"})  # fields of a hosted tool that choose
HARMLESS: Final = (("store", False),)  # values with which a field that chooses passes all the same


class PassList(msgspec.Struct, frozen=True):
    """The fields that may pass: names, and patterns with ``*``, ``?`` and ``[ab]``.

    Attributes:
        entries: the list; ``default`` stands for ``PASSED``.
    """

    entries: tuple[str, ...] = (DEFAULT,)

    def passes(self, name: str) -> bool:
        """Whether a field passes: a name with ``tools.`` before a hosted tool's type, ``betas.`` before a feature."""
        if name in self.entries:
            return True
        if chooses(name):
            return False
        if DEFAULT in self.entries and (name in PASSED or name.startswith(("betas.", "tools."))):
            return True
        return any(fnmatchcase(name, entry) for entry in self.entries)


DEFAULT_LIST: Final = PassList()


def chooses(name: str) -> bool:
    """Whether a field chooses a model, a route, a provider or a price, or reaches into the upstream's account."""
    return name in CHOOSING or any(fnmatchcase(name, pattern) for pattern in CHOOSING_PATTERNS)


def pass_lists(*given: tuple[str, ...] | None) -> tuple[PassList, ...]:
    """Return the lists that hold: those that are given, each of which must let a field pass; otherwise the default."""
    lists = tuple(PassList(entries) for entries in given if entries is not None)
    return lists or (DEFAULT_LIST,)


def passed_fields(fields: dict[str, Any], lists: Iterable[PassList]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the fields that pass, and the names of those that don't; null counts as absent."""
    passed: dict[str, Any] = {}
    left_out: list[str] = []
    for name, value in fields.items():
        if name in KNOWN or _harmless(name, value) or all(one.passes(name) for one in lists):
            passed[name] = value
        elif value is not None:
            left_out.append(name)
    return passed, tuple(sorted(left_out))


def passed_request(request: ChatRequest, lists: tuple[PassList, ...]) -> tuple[ChatRequest, tuple[str, ...]]:
    """Return the request with the fields and the hosted tools that pass, and the names of what is left out."""
    hosted = [tool for tool in request.tools if tool.extra and vendor_of(tool) is not None]
    if not request.extra and not hosted:
        return request, ()
    extra = dict(request.extra)
    betas = extra.pop(BETAS, ())
    extra, left_out = passed_fields(extra, lists)
    kept = [name for name in betas if all(one.passes(f"betas.{name}") for one in lists)]
    missing = [f"betas.{name}" for name in betas if name not in kept]
    if kept:
        extra[BETAS] = kept
    tools: list[Tool] = []
    for tool in request.tools:
        passed = _passed_tool(tool, lists, missing) if tool.extra else tool
        if passed is not None:
            tools.append(passed)
    left_out = (*left_out, *missing)
    if not left_out and extra == request.extra:
        return request, ()
    return msgspec.structs.replace(request, extra=extra, tools=tuple(tools)), left_out


def warning_of(left_out: Iterable[str]) -> str:
    """Return the text of a warning, safe for a header; empty where nothing was left out."""
    names = ["".join(char if "!" <= char <= "~" else "?" for char in name[:MAX_NAME]) for name in left_out]
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return f"left out, as pass_fields says: {', '.join(names[:MAX_NAMED])}{more}" if names else ""


def _harmless(name: str, value: Any) -> bool:  # noqa: ANN401 - any JSON
    return any(name == field and value is harmless for field, harmless in HARMLESS)


def _passed_tool(tool: Tool, lists: tuple[PassList, ...], missing: list[str]) -> Tool | None:
    """Return a tool without the fields that may not pass; None for a hosted tool that may not. Adds to ``missing``."""
    dialect: Vendor | None = vendor_of(tool)
    if dialect is None:
        return tool
    fields = tool.extra[dialect]
    kind = f"tools.{fields['type']}"
    if not all(one.passes(kind) for one in lists):
        missing.append(kind)
        return None
    left_out = [name for name in fields if name in WITHIN and not all(f"{kind}.{name}" in one.entries for one in lists)]
    if not left_out:
        return tool
    missing += [f"{kind}.{name}" for name in left_out]
    kept = {name: value for name, value in fields.items() if name not in left_out}
    return msgspec.structs.replace(tool, extra={**tool.extra, dialect: kept})
