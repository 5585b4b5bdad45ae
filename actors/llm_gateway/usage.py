"""Usage of calls: the most that is expected, what one has used, and what all of a request have used."""

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


def worst_case(request: ChatRequest) -> tuple[int, int]:
    """Return the most tokens of input and of output that a call is expected to use."""
    return estimate_tokens(request), request.max_tokens or OUTPUT_CEILING


def used(reader: AnswerReader | None, request: ChatRequest, chars: int, *, begun: bool) -> tuple[Usage | None, bool]:
    """Return the tokens of a call, and whether they are an estimate; None where nothing came that could cost anything.

    A provider's count is final once the answer has a finish reason. Before that, a call that has brought content is
    estimated: as reported, or more where the content is more than that.

    Args:
        reader: has read the answer; None where there is none.
        request: was sent.
        chars: how many characters of content came.
        begun: whether any content came.
    """
    reported = None if reader is None or reader.usage == NOTHING else reader.usage
    whole = reader is not None and reader.finish_reason is not None
    if (whole and reported is not None) or not (begun or whole):
        return reported, False
    counted = reported or NOTHING
    estimate = msgspec.structs.replace(
        counted,
        input_tokens=counted.input_tokens or estimate_tokens(request),
        output_tokens=max(counted.output_tokens, -(-chars // CHARS_PER_TOKEN)),
    )
    return estimate, True


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
