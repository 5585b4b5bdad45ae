"""A run: one answer, and the only writer of its log.

One object, one loop, one door. A run creates its log, and only the methods of ``Run`` write to it. They are synchronous
and run on the event loop, so nobody sees a change half made. A run knows nothing of its owner's tables: it calls
``on_end``, and the owner edits its tables itself.
"""

import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final

from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, Span, StatusCode

from actors.log.event_log import RING_BYTES, EventLog
from actors.requests.input_size import request_bytes
from actors.requests.stream import RequestStream
from protocol import spans
from protocol.cache import CachedLog
from protocol.errors import InternalError
from protocol.events import Cancelled, Completed, Content, Failed, Started
from protocol.limits import LimitHold
from protocol.llm import Attempt, Cost, Usage
from protocol.packed import PackedEvents
from protocol.requests import Submit

NO_USAGE: Final = Usage()
NO_CALL: Final = (0, "", "")
MAX_SEED: Final = 2**31 - 1  # of a made-up seed: every provider takes it


class Run:
    """One answer: its log, the requests that share it, and the calls to the upstream that were made for it.

    ::

        new --begin--> pending --write--> running --finish--> completed | failed | cancelled
                          |                                              ^
                          +--finish--------------------------------------+

    Args:
        key: the id of the request that started it; empty for a replay.
        submit: the submission that started it.
        fingerprint: its key among the shared runs and in the cache.
        span: open until ``finish``; every request that joins is linked to it.
        max_bytes: the log's budget of unpacked entries, in bytes.
        pages: the log's first entries, packed.
        on_end: called once with the run, in ``finish`` and after the terminal entry.
        on_late: called with the run and a call that was counted after ``finish``.

    Attributes:
        key: as given.
        fingerprint: as given.
        span: as given.
        request: the request to the model.
        delivery: how the request that started it is run and shared.
        tenant: whose run it is; a run is never shared across tenants.
        account: pays for all calls; None for nobody.
        trace_id: of the submission that started it.
        hold: what that submission has taken from rate limits; the tokens are counted when they are known.
        log: for readers; only this class writes to it.
        asked: whether the gateway has been asked.
        attempts: the calls to the upstream that have ended, in order.
        called: number, provider and model of the call that began last; the number is 0 for none.
        provider: the provider that answered, or was called last; None while that is not known.
        usage: tokens of all calls.
        counted: tokens of the present call that the provider has counted by its first content.
        cost: US dollars for all calls; None where a price is unknown, and while nothing has been used.
        upstream_wait: seconds from a call's start to its first content, of the last call that had content.
        first_content: when the first content of all came, in Unix seconds; 0 while there was none.
        forgotten: whether a request that shared it was deleted: the answer is not for the cache.
    """

    __slots__ = (
        "_input_bytes",
        "_numbered",
        "_on_end",
        "_on_late",
        "_streams",
        "account",
        "asked",
        "attempts",
        "called",
        "cost",
        "counted",
        "delivery",
        "fingerprint",
        "first_content",
        "forgotten",
        "hold",
        "key",
        "log",
        "provider",
        "request",
        "span",
        "tenant",
        "trace_id",
        "upstream_wait",
        "usage",
    )

    def __init__(
        self,
        key: str,
        submit: Submit,
        *,
        fingerprint: bytes = b"",
        span: Span = INVALID_SPAN,
        max_bytes: int = RING_BYTES,
        pages: Sequence[PackedEvents] = (),
        on_end: "Callable[[Run], object] | None" = None,
        on_late: "Callable[[Run, Attempt], object] | None" = None,
    ) -> None:
        self.key = key
        self.fingerprint = fingerprint
        self.span = span
        self.request = submit.request
        self.delivery = submit.delivery
        self.tenant = submit.tenant
        self.account = submit.account
        self.trace_id = submit.trace_id
        self.hold = submit.hold
        self.log = EventLog(max_bytes=max_bytes, pages=pages)
        self.asked = False
        self.attempts: tuple[Attempt, ...] = ()
        self.called = NO_CALL
        self.provider: str | None = None
        self.usage = NO_USAGE
        self.counted = NO_USAGE
        self.cost: Cost | None = None
        self.upstream_wait = 0.0
        self.first_content = 0.0
        self.forgotten = False
        self._input_bytes = 0 if submit.digests is None else submit.digests.input_bytes  # 0: not estimated yet
        self._numbered: dict[int, Attempt] = {}
        self._on_end = on_end
        self._on_late = on_late
        self._streams: dict[str, RequestStream] = {}

    @classmethod
    def replay(cls, submit: Submit, cached: CachedLog, *, fingerprint: bytes, max_bytes: int = RING_BYTES) -> "Run":
        """Return a run that has ended already: a finished log from the cache, in an epoch of its own."""
        run = cls("", submit, fingerprint=fingerprint, max_bytes=max_bytes, pages=cached.pages)
        run.log.append(cached.completed)
        run.provider, run.usage = cached.provider, cached.usage
        return run

    @property
    def size(self) -> int:
        """Bytes held, estimated: the log and the request to the model."""
        return self.log.size + self.input_bytes

    @property
    def input_bytes(self) -> int:
        """Bytes that the request to the model holds, estimated."""
        self._input_bytes = self._input_bytes or request_bytes(self.request)
        return self._input_bytes

    @property
    def seed(self) -> int:
        """The request's seed; without one it follows from the fingerprint, so that equal requests have the same."""
        seed = self.request.seed
        return int.from_bytes(self.fingerprint[:4]) & MAX_SEED if seed is None else seed

    @property
    def cached(self) -> bool:
        """Whether the whole answer may be in the cache: others were allowed to share it."""
        return self.delivery.dedupe and self.delivery.cache_ttl > 0

    @property
    def requests(self) -> tuple[str, ...]:
        """The ids of the requests that share the run now; none once it has ended."""
        return tuple(self._streams)

    def begin(self, stream: RequestStream, created: float) -> None:
        """Write the first entry, and count the request that starts the run.

        Args:
            stream: that request's view of the log.
            created: when it was submitted, in Unix seconds.

        Raises:
            InternalError: the run has begun already.
        """
        if self.log.offset:
            raise InternalError("the run has begun already")
        self._streams[stream.request_id] = stream
        self.log.append(Started(model=self.request.model, created=int(created)))

    def join(self, stream: RequestStream) -> None:
        """Count one more request, and link its current span with the run's.

        Raises:
            InternalError: the run has ended.
        """
        if self.log.ended:
            raise InternalError("the run has ended, nobody can join it")
        submitter = trace.get_current_span()
        self.span.add_link(submitter.get_span_context(), {spans.REQUEST_ID: self.key})
        submitter.add_link(self.span.get_span_context())
        self._streams[stream.request_id] = stream

    def leave(self, stream: RequestStream, event: Cancelled | Failed) -> bool:
        """End one request's view with ``event`` while the run goes on for the others.

        Returns:
            Whether it is the last request. Then nothing is written here: the caller cancels the run, and the run's
            terminal entry ends the request.
        """
        if self._streams.keys() == {stream.request_id}:
            return True
        del self._streams[stream.request_id]
        stream.cut(event)
        return False

    def write(self, events: tuple[Content, ...], waited: float = 0.0) -> None:
        """Append content. After ``finish`` it is dropped: a cancelled call may still deliver some.

        Args:
            events: the content, in order; at least one.
            waited: seconds from the call's start to its first content; 0 where this is not the first.
        """
        log = self.log
        if log.ended:
            return
        if waited:
            self.upstream_wait = waited
            self.first_content = self.first_content or time.time()
        log.append(*events)

    def finish(self, event: Completed | Failed | Cancelled) -> bool:
        """Write the terminal entry, end the span, call ``on_end`` and let all requests go.

        Returns:
            Whether this was the end; False, and nothing is done, for a run that has ended already.
        """
        if self.log.ended:
            return False
        if self.provider is None:
            self.provider = self.called[1] or (self.attempts[-1].provider if self.attempts else None)
        self.log.append(event)
        if isinstance(event, Failed):
            self.span.set_attribute(spans.ERROR_TYPE, event.code)
            self.span.set_status(StatusCode.ERROR, event.message)
        self.span.end()
        if self.hold is not None and not self._uncounted(event):
            self._count_tokens(self.hold)
        if self._on_end is not None:
            self._on_end(self)
        self._streams.clear()
        return True

    def begin_call(self, number: int, provider: str, model: str) -> None:
        """Note that a call to the upstream begins; of parallel calls the last one counts."""
        self.called = (number, provider, model)

    def count(self, attempt: Attempt, number: int) -> None:
        """Record a call to the upstream, also after ``finish``.

        Args:
            attempt: the call.
            number: which call of the run it is, from 1; a known number replaces that call, and 0 is the next one.
        """
        if self.log.ended and self._on_late is not None:
            self._on_late(self, attempt)
        numbered = self._numbered
        numbered[number or len(numbered) + 1] = attempt
        if len(numbered) == 1:
            self.attempts, self.usage = (attempt,), attempt.usage or NO_USAGE
            self.cost = attempt.cost if attempt.usage else None
        else:
            self._add_up()
        if self.hold is not None and self.log.ended:
            self._count_tokens(self.hold)

    def _add_up(self) -> None:
        """Sum up the calls to the upstream."""
        numbered = self._numbered
        self.attempts = tuple(numbered[key] for key in sorted(numbered))
        usages = [one.usage for one in self.attempts if one.usage is not None]
        costs = [one.cost.usd for one in self.attempts if one.cost is not None]
        self.usage = sum(usages, NO_USAGE)
        self.cost = Cost(usd=sum(costs, Decimal(0))) if usages and len(costs) == len(usages) else None

    def _uncounted(self, event: Completed | Failed | Cancelled) -> bool:
        """Whether a call has yet to report its tokens, and will, although the run has ended."""
        if isinstance(event, Completed):
            return False
        last = self.attempts[-1].usage if self.attempts else None
        return self.called[0] > len(self._numbered) or (self.first_content > 0 and last is None)

    def _count_tokens(self, hold: LimitHold) -> None:
        hold.count(self.usage.input_tokens + self.usage.output_tokens)
