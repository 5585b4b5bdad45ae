"""Usage of calls: the most that is expected, what one has used, and what all of a request have used."""

import logging
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import msgspec

from protocol.llm import Attempt as AttemptReport
from protocol.llm import ChatRequest, Usage
from protocol.tokens import CHARS_PER_TOKEN, estimate_tokens
from protocol.upstream import AnswerReader

NOTHING: Final = Usage()
OUTPUT_CEILING: Final = 4096  # tokens of output that are expected where neither the request nor the target bounds them

DOUBT: Final = 10  # times our estimate, beyond which a count is not believed
OUTPUT_LIMIT: Final = 131_072  # tokens of output that are believed where nobody bounds them, reasoning included
LEAST_BOUND: Final = 16_384  # tokens of input that are believed of any call: upstreams have prompts of their own
HOSTED: Final = ("tools", "web_search_options", "plugins", "search_parameters", "mcp_servers")

_log = logging.getLogger("tidegate.gateway")


def worst_case(request: ChatRequest) -> tuple[int, int]:
    """Return the most tokens of input and of output that a call is expected to use."""
    return estimate_tokens(request), request.max_tokens or OUTPUT_CEILING


def used(
    reader: AnswerReader | None, request: ChatRequest, chars: int, *, begun: bool, window: int | None = None
) -> tuple[Usage | None, bool]:
    """Return the tokens of a call, and whether they are an estimate; None where nothing came that could cost anything.

    A provider's count is a claim. It is final once the answer has a finish reason, where it can be true: what is
    missing then, and what is beyond the bounds, is estimated. Before that, a call that has brought content is
    estimated: as reported, or more where the content is more than that.

    Args:
        reader: has read the answer; None where there is none.
        request: was sent.
        chars: how many characters of content came.
        begun: whether any content came.
        window: the tokens of the model's context; None where they are not known.
    """
    whole = reader is not None and reader.finish_reason is not None
    if not begun and (reader is None or reader.finish_reason in (None, "other")):
        return None, False
    reported = NOTHING if reader is None or reader.usage is None else reader.usage
    if reported == NOTHING and not begun:
        return None, False
    counted = whole and reader is not None and reader.counted
    said = -(-chars // CHARS_PER_TOKEN)
    inputs, outputs = reported.input_tokens, reported.output_tokens
    if is_large(reported):
        inputs, outputs = _believed(reported, request, window)
    if counted and inputs and (outputs or not chars):
        return reported, False
    estimate = msgspec.structs.replace(
        reported if inputs and outputs else _bounded(reported, inputs, outputs),
        input_tokens=inputs or estimate_tokens(request),
        output_tokens=max(outputs, said),
    )
    return estimate, True


def is_large(usage: Usage) -> bool:
    """Whether these are more tokens than are believed of any call."""
    return usage.input_tokens > LEAST_BOUND or usage.output_tokens > DOUBT * OUTPUT_CEILING


def _believed(reported: Usage, request: ChatRequest, window: int | None) -> tuple[int, int]:
    """Return the reported tokens of input and of output, 0 for those that can't be true.

    They are at most the model's context window, which a price list may have too small; where it is not known, ten times
    our estimate. What the vendor adds to the input for its own tools can't be estimated: then there is only a warning.
    """
    inputs, outputs = reported.input_tokens, reported.output_tokens
    expected = estimate_tokens(request)
    most_input = max(window, 2 * expected) if window else max(DOUBT * expected, LEAST_BOUND)
    most_output = DOUBT * max(request.max_tokens, OUTPUT_CEILING) if request.max_tokens else OUTPUT_LIMIT
    if window:
        most_output = min(most_output, window)
    if inputs > most_input and _has_hosted_tools(request):
        _log.warning(
            "%d tokens of input were reported for a call with hosted tools: more than %d",
            inputs,
            most_input,
            extra={"event": "usage_doubtful", "fields": {"tokens": inputs, "expected": most_input}},
        )
        most_input = inputs
    return (inputs if inputs <= most_input else 0), (outputs if outputs <= most_output else 0)


def _bounded(reported: Usage, inputs: int, outputs: int) -> Usage:
    """Return the usage without the classes of tokens that are not believed."""
    return Usage(
        cached_input_tokens=reported.cached_input_tokens if inputs else 0,
        cache_write_input_tokens=reported.cache_write_input_tokens if inputs else 0,
        reasoning_tokens=reported.reasoning_tokens if outputs else 0,
    )


def _has_hosted_tools(request: ChatRequest) -> bool:
    """Whether the vendor may add to the input: by tools of its own, which are passed on as they are."""
    return any(name in request.extra for name in HOSTED)


def total(reports: Sequence[AttemptReport | None]) -> tuple[Usage, Decimal | None]:
    """Return the tokens of all these attempts together, and their price in US dollars: None where one is unknown.

    Args:
        reports: of the attempts; None for one that has not ended.
    """
    counted = [report for report in reports if report is not None and report.usage is not None]
    if len(counted) == 1:
        only = counted[0]
        return only.usage or NOTHING, None if only.cost is None else only.cost.usd
    usage = sum((report.usage for report in counted if report.usage is not None), NOTHING)
    known = [report.cost.usd for report in counted if report.cost is not None]
    return usage, sum(known, Decimal(0)) if len(known) == len(counted) else None
