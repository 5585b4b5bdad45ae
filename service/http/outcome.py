"""The outcome of a request, as every surface reports it: headers, end, failure."""

import asyncio
import time
from typing import Final

from actors.log.follow import Batch
from protocol.errors import InternalError, RequestCancelled, ShuttingDown, TidegateError
from protocol.events import Cancelled, Completed, EventStream, Failed, Snapshot, Terminal
from protocol.requests import RequestHandle
from service.context import CallContext

SUBMIT_TIMEOUT: Final = 10.0  # seconds for the router to submit; the answer has the request's own timeout
FIND_TIMEOUT: Final = 5.0  # seconds


def inference_headers(call: CallContext, handle: RequestHandle, waited: float) -> dict[str, str]:
    """Return the response headers of an inference; an attempt that is still running is counted.

    Args:
        call: the HTTP call; its time began when it was accepted.
        handle: the request that the call submitted.
        waited: seconds until now that were spent waiting for the provider.
    """
    attempts = handle.attempts
    answered = handle.stream.ended or (attempts and not attempts[-1].error)
    running = handle.source == "upstream" and not answered
    ours = max(0.0, time.perf_counter() - call.accepted - waited)
    headers = {
        "x-tidegate-source": handle.source,
        "x-tidegate-attempts": str(len(attempts) + running),
        "x-tidegate-overhead-ms": f"{ours * 1000:.3f}",
    }
    cost = handle.cost
    if cost is not None:
        headers["x-tidegate-cost-usd"] = f"{cost.usd:f}"
    return headers


async def wait_for_end(stream: EventStream) -> Terminal:
    """Wait for the terminal event of a stream, as one of its followers."""
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


def mark_cut_off(call: CallContext, batch: Batch) -> None:
    """Name the shutdown as the failure of a stream that it has ended: the status, which is sent, says nothing of it.

    Args:
        call: the stream's call.
        batch: the last one of the stream.
    """
    end = None if isinstance(batch, Snapshot) or not batch else batch[-1].event
    if isinstance(end, Failed) and end.code == ShuttingDown.code:
        call.failure = end.code


def error_from(event: Failed | Cancelled) -> TidegateError:
    """Return the error for a terminal event."""
    if isinstance(event, Cancelled):
        return RequestCancelled("" if event.reason == "cancelled" else f"the request was cancelled: {event.reason}")
    retry_after = None if event.retry_after_ms is None else event.retry_after_ms / 1000
    return TidegateError(event.message, code=event.code, retry_after=retry_after, errors=event.errors)
