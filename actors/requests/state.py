"""The actor that drives one run: it asks the gateway, and ends the run.

The actor lives as long as its run. The run and its log stay with the router.
"""

from typing import ClassVar, Literal

import msgspec

from actors.requests.failure import failure
from actors.requests.run import Run
from actors.runtime import Actor, Callback, Ref, handles
from protocol.answer import with_result
from protocol.cache import CacheDelete, CachedLog, CachePut
from protocol.events import Cancelled, Completed, Failed
from protocol.gateway import Complete, Completion, Progress
from protocol.message import Message


class Start(Message[None], frozen=True):
    """Ask the gateway."""


class CallCompleted(Message[None], frozen=True):
    """The gateway's reply: a whole answer."""

    completion: Completion


class CallFailed(Message[None], frozen=True):
    """The gateway's reply: an error."""

    error: Exception


class Cancel(Message[None], frozen=True):
    """Cancel the call, and end the run with ``event``."""

    event: Cancelled | Failed


class RunSink(msgspec.Struct, eq=False):
    """Writes the gateway's progress to a run at once, without a message to the run's actor.

    After the run's end it only counts calls.
    """

    run: Run

    async def tell(self, message: Progress) -> None:
        """Write the content, and count the call if ``message`` has one."""
        if message.attempt is not None:
            self.run.count(message.attempt, message.number)
        if message.counted is not None:
            self.run.counted = message.counted
        if message.events:
            self.run.write(message.events, message.waited)


class RequestStateActor(Actor[Start | CallCompleted | CallFailed | Cancel]):
    """Drives one run from the question to the gateway to the terminal entry.

    ::

        pending --content--> running --CallCompleted--> completed
           |                    +------CallFailed-----> failed
           +--------------------+------Cancel---------> cancelled, or failed where the event says so

    Args:
        run: the run; this actor and its sink write to it.
        gateway: completes the request.
        cache: stores whole answers; None for no cache.
    """

    capacity: ClassVar[int] = 64
    overflow: ClassVar[Literal["wait", "reject", "drop_oldest"]] = "wait"
    lingers: ClassVar[bool] = False

    def __init__(self, run: Run, *, gateway: Ref[Complete], cache: "Ref[CachePut | CacheDelete] | None") -> None:
        self._run = run
        self._gateway = gateway
        self._cache = cache
        self._call: Callback[Start | CallCompleted | CallFailed] | None = None

    @handles(Start)
    async def start(self, _message: Start) -> None:
        """Ask the gateway; its reply comes back as ``CallCompleted`` or ``CallFailed``."""
        run = self._run
        if run.asked:
            return
        run.asked = True
        repeatable = run.request.seed is None and run.request.temperature == 0
        complete = Complete(
            request=run.request,
            request_id=run.key,
            trace_id=run.trace_id,
            tenant=run.tenant,
            account=run.account,
            sink=RunSink(run),
            began=run.begin_call,
            restart=run.delivery.on_attempt_failed == "restart",
            repair=run.delivery.repair,
            seed=run.seed if repeatable else None,
        )
        self._call = self.ask_then(
            self._gateway, complete, timeout=run.delivery.timeout, ok=CallCompleted, err=CallFailed
        )

    @handles(CallCompleted)
    async def completed(self, message: CallCompleted) -> None:
        """Store the whole answer in the cache where it may be shared, then end the run with it."""
        run, completion = self._run, message.completion
        if run.log.ended:
            return
        run.provider = completion.provider
        parts, result = completion.parts, completion.result
        event = Completed(
            parts=parts if result is None else with_result(parts, result),
            result=msgspec.UNSET if result is None else result,
            finish_reason=completion.finish_reason,
            raw_finish_reason=completion.raw_finish_reason,
            usage=completion.usage,
            provider=completion.provider,
            model=completion.model,
            logprobs=completion.logprobs,
            stop_sequence=completion.stop_sequence,
            extra=completion.extra,
        )
        if self._cache is not None and completion.repeatable and run.cached and not run.forgotten:
            await self._store(self._cache, event)
        run.finish(event)

    @handles(CallFailed)
    async def failed(self, message: CallFailed) -> None:
        """End the run with the error."""
        self._run.finish(failure(message.error, self._run.delivery.timeout))

    @handles(Cancel)
    async def cancel(self, message: Cancel) -> None:
        """Cancel the call and end the run. What the call has used is counted when it is known."""
        if self._call is not None:
            self._call.cancel()
        self._run.finish(message.event)

    async def _store(self, cache: Ref[CachePut | CacheDelete], completed: Completed) -> None:
        """Store the answer. It is taken back where a request of the run was deleted in the meantime."""
        run = self._run
        log = CachedLog(
            pages=run.log.pages(),
            completed=completed,
            provider=run.provider or "",
            usage=run.usage,
            cost=run.cost,
            attempts=run.attempts,
        )
        await cache.tell(CachePut(run.fingerprint, log, run.delivery.cache_ttl, run.tenant))
        if run.forgotten:
            await cache.tell(CacheDelete(run.fingerprint, run.tenant))
