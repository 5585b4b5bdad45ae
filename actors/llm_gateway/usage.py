"""What a call has used: as its provider counted, or as well as we can tell."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import msgspec

from protocol.llm import Attempt, ChatRequest, Usage
from protocol.tokens import CHARS_PER_TOKEN, estimate_tokens
from protocol.upstream import AnswerReader

NOTHING: Final = Usage()


def used(reader: AnswerReader | None, request: ChatRequest, chars: int, *, begun: bool) -> tuple[Usage | None, bool]:
    """Return the tokens, and whether they are an estimate; None where nothing came that could cost anything.

    A provider's count is final once the model has said why it stopped. Before that a call that has brought content is
    estimated: as reported, or more where there is more than that.

    Args:
        reader: what is known of the answer; None where there is none.
        request: what was asked.
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


def total(attempts: Sequence[Attempt | None]) -> tuple[Usage, Decimal | None]:
    """Return the tokens of all these attempts together, and their price in US dollars: None where one is unknown.

    Args:
        attempts: as far as they are known; None for one that is not over.
    """
    counted = [attempt for attempt in attempts if attempt is not None and attempt.usage is not None]
    if len(counted) == 1:
        only = counted[0]
        return only.usage or NOTHING, None if only.cost is None else only.cost.usd
    usage = sum((attempt.usage for attempt in counted if attempt.usage is not None), NOTHING)
    known = [attempt.cost.usd for attempt in counted if attempt.cost is not None]
    return usage, sum(known, Decimal(0)) if len(known) == len(counted) else None
