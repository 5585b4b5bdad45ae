"""One actor a run: it owns the log, asks the gateway, and writes the one terminal entry.

The actor lives as long as its run. What it leaves behind, the log and the record, is plain data that the router keeps.
"""

from collections.abc import Callable
from typing import ClassVar, Literal

import msgspec
from opentelemetry.trace import StatusCode

from actors.request_record import Run
from actors.runtime import Actor, Callback, Ref, handles
from protocol import spans
from protocol.cache import CachedLog, CachePut
from protocol.errors import ActorError, AskTimeout, DeadlineExceeded, InternalError, TidegateError
from protocol.events import Cancelled, Completed, Event, Failed
from protocol.gateway import Complete, Completion, Progress
from protocol.message import Message


class Start(Message[None], frozen=True):
    """Ask the gateway."""


class Finished(Message[None], frozen=True):
    """The gateway's reply: the answer is whole."""

    completion: Completion


class Broken(Message[None], frozen=True):
    """The gateway's reply: the answer will not become whole."""

    error: Exception


class Cancel(Message[None], frozen=True):
    """Nobody wants the answer any more: end with ``event``."""

    event: Cancelled | Failed


class RunSink(msgspec.Struct, eq=False):
    """Takes what the gateway tells of a run, where it is told: content goes into the log without a message each.

    The run's actor makes the sink and alone ends the log; after that there is only to count what calls have used.
    """

    run: Run

    async def tell(self, message: Progress) -> None:
        """Write what has come into the log."""
        run = self.run
        if message.attempt is not None:
            run.count(message.attempt, message.number)
        if run.log.ended or not message.events:
            return
        if message.waited:
            run.upstream_wait = message.waited
        run.log.extend(message.events)


class RequestStateActor(Actor[Start | Finished | Broken | Cancel]):
    """Drives one run from its start to its terminal entry.

    Args:
        run: what it drives; nobody but this actor and its sink writes into the log.
        gateway: whom it asks.
        cache: where a whole answer is kept; None for nowhere.
        on_end: told once, after the terminal entry.
    """

    capacity: ClassVar[int] = 64
    overflow: ClassVar[Literal["wait", "reject", "drop_oldest"]] = "wait"
    lingers: ClassVar[bool] = False

    def __init__(
        self,
        run: Run,
        *,
        gateway: Ref[Complete],
        cache: "Ref[CachePut] | None",
        on_end: Callable[[Run], None],
    ) -> None:
        self._run = run
        self._gateway = gateway
        self._cache = cache
        self._on_end = on_end
        self._call: Callback[Start | Finished | Broken] | None = None

    async def started(self) -> None:
        """A run that had begun before is one that a fault of ours interrupted: it ends, and nothing is sent twice."""
        if self._run.begun and not self._run.log.ended:
            self._end(failure(InternalError()))

    @handles(Start)
    async def start(self, _message: Start) -> None:
        """Ask the gateway; its reply comes back as ``Finished`` or ``Broken``."""
        run = self._run
        if run.begun:
            return
        run.begun = True
        complete = Complete(
            request=run.request,
            request_id=run.key,
            tenant=run.tenant,
            account=run.account,
            sink=RunSink(run),
            restart=run.delivery.on_attempt_failed == "restart",
            repair=run.delivery.repair,
        )
        self._call = self.ask_then(self._gateway, complete, timeout=run.delivery.timeout, ok=Finished, err=Broken)

    @handles(Finished)
    async def finished(self, message: Finished) -> None:
        """End the log with the whole answer, and keep it for those who ask the same."""
        run, completion = self._run, message.completion
        if run.log.ended:
            return
        run.provider = completion.provider
        completed = Completed(
            result=completion.result or _plain(completion),
            finish_reason=completion.finish_reason,
            usage=completion.usage,
            provider=completion.provider,
            model=completion.model,
            reasoning=completion.reasoning,
            logprobs=completion.logprobs,
            stop_sequence=completion.stop_sequence,
        )
        if self._cache is not None and run.delivery.dedupe and run.delivery.cache_ttl > 0:
            await self._keep(self._cache, completed)
        self._end(completed)

    @handles(Broken)
    async def broken(self, message: Broken) -> None:
        """End the log with the failure."""
        if not self._run.log.ended:
            self._end(failure(message.error))

    @handles(Cancel)
    async def cancel(self, message: Cancel) -> None:
        """Give up the call, and end the log; what the call has used is counted when it is known."""
        if self._call is not None:
            self._call.cancel()
        if not self._run.log.ended:
            self._end(message.event)

    async def _keep(self, cache: Ref[CachePut], completed: Completed) -> None:
        run = self._run
        events = run.log.events()
        if events is None:
            return
        log = CachedLog(
            events=(*events, completed),
            provider=run.provider or "",
            usage=run.usage,
            cost=run.cost,
            attempts=run.attempts,
        )
        await cache.tell(CachePut(run.fingerprint, log, run.delivery.cache_ttl))

    def _end(self, event: Event) -> None:
        run = self._run
        if run.provider is None and run.attempts:
            run.provider = run.attempts[-1].provider
        run.log.append(event)
        if isinstance(event, Failed):
            run.span.set_attribute(spans.ERROR_TYPE, event.code)
            run.span.set_status(StatusCode.ERROR, event.message)
        run.span.end()
        self._on_end(run)


def failure(error: Exception) -> Failed:
    """Return the terminal event for ``error``; the runtime's own failures keep their inside to themselves."""
    if isinstance(error, AskTimeout):
        error = DeadlineExceeded()
    elif not isinstance(error, TidegateError) or (isinstance(error, ActorError) and not error.problem.temporary):
        error = InternalError()
    retry_after = error.retry_after
    return Failed(
        code=error.code,
        message=error.detail,
        temporary=error.problem.temporary,
        retry_after_ms=None if retry_after is None else round(retry_after * 1000),
        errors=error.errors,
    )


def _plain(completion: Completion) -> msgspec.Raw:
    calls = [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in completion.tool_calls]
    return msgspec.Raw(msgspec.json.encode({"text": completion.text, "toolCalls": calls}))
