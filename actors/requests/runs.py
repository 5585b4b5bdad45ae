"""The runs in progress, and the actors that drive them."""

from collections.abc import Callable, Iterator
from typing import Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, Tracer

from actors.requests.failure import failure
from actors.requests.outcome import log_late_call
from actors.requests.run import Run
from actors.requests.state import Cancel, RequestStateActor, Start
from actors.runtime import Keyed, Ref, System
from protocol import ids, spans
from protocol.cache import CacheDelete, CachePut
from protocol.errors import RETRY_ELSEWHERE, InternalError, ShuttingDown, TidegateError
from protocol.events import Cancelled, Failed
from protocol.gateway import Complete
from protocol.requests import Submit

CUT_OFF: Final = "The server is shutting down: the answer was cut off"


class RunTable:
    """Runs in progress by key, and those that may be shared also by fingerprint. One actor drives each run.

    A run leaves the table in the same step of the event loop in which its log ends. So nobody joins a log that has
    ended, and no end is lost, however full a mailbox is. The router's store bounds the number of runs.

    Args:
        system: owns the runs' actors.
        gateway: completes the requests.
        cache: stores whole answers; None for no cache.
        limit: the most runs at once.
        ring_bytes: each log's budget of unpacked entries, in bytes.
        on_end: called once with each run that has ended and has left the table.
    """

    def __init__(
        self,
        system: System,
        *,
        gateway: Ref[Complete],
        cache: Ref[CachePut | CacheDelete] | None,
        limit: int,
        ring_bytes: int,
        on_end: Callable[[Run], object],
    ) -> None:
        self._gateway = gateway
        self._cache = cache
        self._ring_bytes = ring_bytes
        self._on_end = on_end
        self._tracer: Tracer | None = system.tracer if system.tracing else None
        self._actors: Keyed[Start | Cancel] = system.keyed(self._new_actor, name="request-state", idle=1.0, limit=limit)
        self._runs: dict[str, Run] = {}
        self._shared: dict[bytes, Run] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(tuple(self._runs.values()))

    @property
    def requests(self) -> int:
        """The number of requests that the runs answer."""
        return sum(len(run.requests) for run in self._runs.values())

    def joinable(self, fingerprint: bytes) -> Run | None:
        """Return the run that a request with this fingerprint may join."""
        return self._shared.get(fingerprint)

    def new(self, submit: Submit, fingerprint: bytes) -> Run:
        """Return a new run for ``submit``; it is in the table from ``start`` on.

        Raises:
            ShuttingDown: the runs have been ended.
        """
        if self._closed:
            raise ShuttingDown(retry_after=RETRY_ELSEWHERE)
        key = ids.request_id()
        return Run(
            key,
            submit,
            fingerprint=fingerprint,
            span=self._open_span(key),
            max_bytes=self._ring_bytes,
            on_end=self._ended,
            on_late=log_late_call,
        )

    def start(self, run: Run, *, shared: bool) -> None:
        """Add a run that has begun, and start its actor; others may join a ``shared`` one.

        Raises:
            TidegateError: there is no actor for it. The run has ended then.
        """
        self._runs[run.key] = run
        if shared:
            self._shared[run.fingerprint] = run
        try:
            self._post_start(run)
        except TidegateError as error:
            run.finish(failure(error))
            raise

    def cancel(self, run: Run, event: Cancelled | Failed) -> None:
        """Let nobody join ``run`` any more, and tell its actor to end it with ``event``."""
        self._unshare(run)
        self._actors.ref(run.key).post(Cancel(event))

    def end(self) -> int:
        """End all runs with ``shutting_down``, cancel their calls, and begin no new one.

        Returns the number of requests that have ended so.
        """
        requests = self.requests
        actors = [actor for run in self if (actor := self._actors.get(run.key)) is not None]
        event = self._finish()
        for actor in actors:
            actor.post(Cancel(event))
        return requests

    async def close(self) -> None:
        """End all runs with ``shutting_down``, and kill their actors."""
        self._finish()
        await self._actors.kill()

    def _finish(self) -> Failed:
        self._closed = True
        event = failure(ShuttingDown(CUT_OFF, retry_after=RETRY_ELSEWHERE))
        for run in self:
            run.finish(event)
        return event

    def _ended(self, run: Run) -> None:
        self._runs.pop(run.key, None)
        self._unshare(run)
        self._on_end(run)

    def _unshare(self, run: Run) -> None:
        if self._shared.get(run.fingerprint) is run:
            del self._shared[run.fingerprint]

    def _open_span(self, key: str) -> Span:
        if self._tracer is None:
            return INVALID_SPAN
        name, attributes = spans.process("request-state"), {spans.REQUEST_ID: key}
        return self._tracer.start_span(name, kind=SpanKind.CONSUMER, attributes=attributes)

    def _post_start(self, run: Run) -> None:
        """Post ``Start`` within the run's span, so that it is the parent of all spans of the call."""
        ref = self._actors.ref(run.key)
        if not run.span.get_span_context().is_valid:
            ref.post(Start())
            return
        token = otel_context.attach(trace.set_span_in_context(run.span))
        try:
            ref.post(Start())
        finally:
            otel_context.detach(token)

    def _new_actor(self, key: str) -> RequestStateActor:
        """Return the actor of a run. One that replaces a failed actor ends the run: the gateway is asked only once."""
        run = self._runs[key]
        if run.asked:
            run.finish(failure(InternalError()))
        return RequestStateActor(run, gateway=self._gateway, cache=self._cache)
