"""What every surface says of a request that it has submitted: its headers, its end, its failure."""

import asyncio
import time
from typing import Final

from protocol.errors import InternalError, RequestCancelled, TidegateError
from protocol.events import Cancelled, Completed, EventStream, Failed, Terminal
from protocol.requests import RequestHandle
from service.context import Call

SUBMIT_TIMEOUT: Final = 10.0  # seconds for deciding which log answers; the answer itself has the request's own time
FIND_TIMEOUT: Final = 5.0  # seconds


def inference_headers(call: Call, handle: RequestHandle, waited: float) -> dict[str, str]:
    """Return the headers of an answer; a call to the model's side that is still under way counts as an attempt.

    Args:
        call: whose time began when it was accepted.
        handle: what it asked for.
        waited: seconds of the time until now that are the model's side's.
    """
    attempts = handle.attempts
    answered = handle.stream.ended or (attempts and not attempts[-1].error)
    under_way = handle.source == "upstream" and not answered
    ours = max(0.0, time.perf_counter() - call.accepted - waited)
    headers = {
        "x-tidegate-source": handle.source,
        "x-tidegate-attempts": str(len(attempts) + under_way),
        "x-tidegate-overhead-ms": f"{ours * 1000:.3f}",
    }
    cost = handle.cost
    if cost is not None:
        headers["x-tidegate-cost-usd"] = f"{cost.usd:f}"
    return headers


async def end_of(stream: EventStream) -> Terminal:
    """Wait for the end of a stream, as one of its followers, and return it."""
    if not stream.ended:
        ended = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if stream.ended and not ended.done():
                ended.set_result(None)

        stream.listen(wake)
        try:
            await ended
        finally:
            stream.unlisten(wake)
    event = stream.since(stream.offset - 1)[-1].event
    if isinstance(event, Completed | Failed | Cancelled):
        return event
    raise InternalError("a log ended without a terminal entry")


def error_of(event: Failed | Cancelled) -> TidegateError:
    """Return the failure that a request ended with."""
    if isinstance(event, Cancelled):
        return RequestCancelled("" if event.reason == "cancelled" else f"the request was cancelled: {event.reason}")
    retry_after = None if event.retry_after_ms is None else event.retry_after_ms / 1000
    return TidegateError(event.message, code=event.code, retry_after=retry_after, errors=event.errors)
