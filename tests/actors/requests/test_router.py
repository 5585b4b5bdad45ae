"""The request router: which log answers a submission, and when each request ends."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import msgspec
import pytest

from actors.cache import CacheActor
from actors.log.follow import Follower
from actors.requests.limits import RequestLimits
from actors.requests.router import RequestRouter
from actors.requests.router_messages import ForgetModels, RouterMessage
from actors.runtime import Actor, Deferred, Ref, handles
from actors.runtime.testing import TestSystem
from protocol.cache import CacheDelete, CacheGet, CachePut
from protocol.errors import (
    ActorFailed,
    DeadlineExceeded,
    IdempotencyKeyReused,
    NotFound,
    Overloaded,
    ProviderError,
    ShuttingDown,
    TidegateError,
)
from protocol.events import Cancelled, Completed, Content, Delta, Entry, EventStream, Failed, Snapshot, Terminal
from protocol.gateway import Complete, Completion, ModelInfo, Progress, ResolveModel
from protocol.llm import Attempt, ChatMessage, ChatRequest, Cost, TextPart, Usage
from protocol.requests import (
    AwaitRequests,
    CancelRequest,
    CountRequests,
    DeleteRequest,
    Delivery,
    EndRequests,
    GetRequest,
    Submit,
    Submitted,
)

HELLO = ChatRequest(model="default", messages=(ChatMessage(role="user", content="hello"),))


class Call:
    """One call to the gateway, which the test controls."""

    def __init__(self, complete: Complete) -> None:
        self.complete = complete
        self.cancelled = asyncio.Event()
        self.outcome: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()

    async def tell(self, *events: Content) -> None:
        """Report content to the run."""
        assert self.complete.sink is not None
        await self.complete.sink.tell(Progress(events=events, waited=0.25))

    async def say(self, *texts: str) -> None:
        """Report these texts to the run, and complete the call."""
        await self.tell(*(Delta(text=text) for text in texts))
        usage = Usage(output_tokens=len(texts))
        assert self.complete.sink is not None
        await self.complete.sink.tell(Progress(attempt=Attempt(provider="p", model="m", usage=usage)))
        self.outcome.set_result(Completion(parts=(TextPart(text="".join(texts)),), usage=usage, provider="p"))


class ManualGateway(Actor[Complete | ResolveModel]):
    """A gateway whose calls the test answers."""

    def __init__(self, calls: "asyncio.Queue[Call]") -> None:
        self.calls = calls

    @handles(Complete)
    async def complete(self, message: Complete) -> "Deferred[Completion]":
        call = Call(message)
        self.calls.put_nowait(call)
        return self.defer(self._run(call))

    @handles(ResolveModel)
    async def resolve(self, message: ResolveModel) -> ModelInfo:
        if message.model == "unknown":
            raise NotFound("no model 'unknown'", code="model_not_found")
        return ModelInfo(message.model, "p")

    async def _run(self, call: Call) -> Completion:
        try:
            return await call.outcome
        except asyncio.CancelledError:
            call.cancelled.set()
            raise


class Bench:
    """A router with a cache and a gateway that the test controls."""

    def __init__(self, system: TestSystem, **options: float) -> None:
        self.system = system
        self.calls: asyncio.Queue[Call] = asyncio.Queue(1000)
        gateway = system.spawn(lambda: ManualGateway(self.calls), name="llm-gateway")
        cache = system.spawn(CacheActor, name="cache")
        self.router: Ref[RouterMessage] = system.spawn(
            lambda: RequestRouter(gateway=gateway, cache=cache, limits=RequestLimits(**options)),  # type: ignore[arg-type]
            name="request-router",
        )

    async def submit(
        self, request: ChatRequest = HELLO, *, tenant: str = "", key: str = "", **delivery: object
    ) -> Submitted:
        """Submit a request."""
        message = Submit(
            request=request,
            tenant=tenant,
            idempotency_key=key,
            delivery=Delivery(**delivery),  # type: ignore[arg-type]
        )
        return await self.router.ask(message, timeout=5)

    async def call(self) -> Call:
        """Return the next call that reaches the gateway."""
        return await self.calls.get()

    async def cancel(self, submitted: Submitted) -> None:
        """Cancel a request."""
        await self.router.ask(CancelRequest(submitted.handle.request_id), timeout=5)

    async def delete(self, submitted: Submitted, tenant: str = "") -> None:
        """Delete a request."""
        await self.router.ask(DeleteRequest(submitted.handle.request_id, tenant), timeout=5)

    async def find(self, submitted: Submitted) -> bool:
        """Return whether a request is there."""
        try:
            await self.router.ask(GetRequest(submitted.handle.request_id), timeout=5)
        except NotFound:
            return False
        return True


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """A router whose gateway the test controls."""
    async with TestSystem() as system:
        yield Bench(system)


async def read(stream: EventStream) -> tuple[str, Terminal]:
    """Follow to the end; return the text and the terminal event."""
    text, last = "", None
    async with Follower(stream) as follower:
        async for item in follower:
            last = item
            if isinstance(item, Snapshot):
                text = item.text
            elif isinstance(item.event, Delta):
                text += item.event.text
    assert isinstance(last, Entry)
    assert isinstance(last.event, Terminal)
    return text, last.event


async def test_a_request_has_one_log_with_its_tokens_and_its_end(bench: Bench) -> None:
    """A submission starts a run: its tokens and its end are one log, and its state agrees."""
    submitted = await bench.submit()
    assert submitted.handle.state().assistant_status == "pending"
    call = await bench.call()
    await call.say("Hel", "lo")
    text, end = await read(submitted.handle.stream)
    assert text == "Hello"
    assert isinstance(end, Completed)
    state = submitted.handle.state()
    assert state.assistant_status == "completed"
    assert state.source == "upstream"
    assert state.usage.output_tokens == 2
    assert msgspec.to_builtins(state.core_result) == {
        "text": "Hello",
        "toolCalls": (),
        "parts": ({"type": "text", "text": "Hello"},),
    }
    assert submitted.handle.upstream_wait == 0.25


async def test_a_hundred_at_once_share_one_call_and_the_next_one_is_replayed(bench: Bench) -> None:
    """Identical requests in flight share one call, a later one needs none, and `source` says which is which."""
    many = await asyncio.gather(*(bench.submit() for _ in range(100)))
    call = await bench.call()
    readers = [asyncio.ensure_future(read(submitted.handle.stream)) for submitted in many]
    await call.say("one ", "answer")
    results = await asyncio.gather(*readers)
    assert [text for text, _ in results] == ["one answer"] * 100
    assert sorted(submitted.handle.source for submitted in many) == ["joined"] * 99 + ["upstream"]
    assert len({submitted.handle.request_id for submitted in many}) == 100
    later = await bench.submit()
    assert later.handle.source == "cache"
    assert (await read(later.handle.stream))[0] == "one answer"
    assert bench.calls.empty()


async def test_nothing_is_shared_across_tenants(bench: Bench) -> None:
    """Neither a run nor a cached log is shared between tenants, and neither finds the other's requests."""
    one, two = await bench.submit(tenant="a"), await bench.submit(tenant="b")
    assert (one.handle.source, two.handle.source) == ("upstream", "upstream")
    await (await bench.call()).say("x")
    await read(one.handle.stream)
    assert (await bench.submit(tenant="c")).handle.source == "upstream"
    with pytest.raises(NotFound, match="there is no request"):
        await bench.router.ask(GetRequest(one.handle.request_id, "b"), timeout=5)


async def test_dedupe_off_makes_a_call_of_its_own(bench: Bench) -> None:
    """A request without `dedupe` does not join, is not joined, and is not replayed."""
    assert [(await bench.submit(dedupe=False)).handle.source for _ in range(2)] == ["upstream", "upstream"]
    assert (await bench.submit()).handle.source == "upstream"


async def test_an_idempotency_key_names_one_request(bench: Bench) -> None:
    """The same key with the same body returns the same request; another body is refused."""
    first = await bench.submit(key="k", dedupe=False)
    again = await bench.submit(key="k", dedupe=False)
    assert again.replayed
    assert again.handle.request_id == first.handle.request_id
    other = msgspec.structs.replace(HELLO, seed=1)
    with pytest.raises(IdempotencyKeyReused):
        await bench.submit(other, key="k", dedupe=False)
    assert (await bench.submit(key="k", dedupe=False, tenant="b")).replayed is False


async def test_an_idempotency_key_counts_also_while_the_first_submission_is_pending(bench: Bench) -> None:
    """Two submissions with one key at the same moment are one request."""
    one, two = await asyncio.gather(bench.submit(key="k", dedupe=False), bench.submit(key="k", dedupe=False))
    assert one.handle.request_id == two.handle.request_id


async def test_a_temporary_failure_before_content_frees_its_key(bench: Bench) -> None:
    """Its key then names a new request, also with another body; the failed one stays readable."""
    first = await bench.submit(key="k", dedupe=False)
    (await bench.call()).outcome.set_exception(ProviderError(code="provider_unavailable"))
    await read(first.handle.stream)
    other = msgspec.structs.replace(HELLO, seed=1)
    again = await bench.submit(other, key="k", dedupe=False)
    assert (again.replayed, again.handle.request_id == first.handle.request_id) == (False, False)
    assert (await bench.submit(other, key="k", dedupe=False)).replayed
    assert first.handle.state().assistant_status == "failed"


@pytest.mark.parametrize(("code", "text"), [("provider_unavailable", "a"), ("provider_rejected", "")])
async def test_other_failures_keep_their_key(bench: Bench, code: str, text: str) -> None:
    """A failure after content, or one that lasts, is the key's answer."""
    first = await bench.submit(key="k", dedupe=False)
    call = await bench.call()
    if text:
        await call.tell(Delta(text=text))
    call.outcome.set_exception(ProviderError(code=code))
    await read(first.handle.stream)
    again = await bench.submit(key="k", dedupe=False)
    assert (again.replayed, again.handle.request_id) == (True, first.handle.request_id)


async def test_cancelling_one_request_changes_nothing_for_the_others(bench: Bench) -> None:
    """A cancelled request gets an end of its own; the run and the others go on."""
    first, second, third = [await bench.submit() for _ in range(3)]
    call = await bench.call()
    await call.tell(Delta(text="a"))
    await bench.cancel(first)
    await bench.cancel(second)
    assert isinstance((await read(second.handle.stream))[1], Cancelled)
    assert first.handle.state().assistant_status == "cancelled"
    assert not call.cancelled.is_set()
    await call.say("b")
    assert await read(third.handle.stream) == ("ab", (await read(third.handle.stream))[1])
    assert third.handle.state().assistant_status == "completed"
    assert first.handle.state().assistant_status == "cancelled"


async def test_the_last_cancelled_request_cancels_the_call(bench: Bench) -> None:
    """After the last request has left, the upstream call is cancelled, and a new request starts a new run."""
    first, second = await bench.submit(), await bench.submit()
    call = await bench.call()
    await bench.cancel(first)
    await bench.cancel(second)
    fresh = await bench.submit()
    await call.cancelled.wait()
    assert fresh.handle.source == "upstream"
    assert isinstance((await read(second.handle.stream))[1], Cancelled)


async def test_cancel_is_idempotent(bench: Bench) -> None:
    """Cancelling a request that has ended changes nothing."""
    submitted = await bench.submit()
    await (await bench.call()).say("x")
    await read(submitted.handle.stream)
    await bench.cancel(submitted)
    await bench.cancel(submitted)
    assert submitted.handle.state().assistant_status == "completed"


async def test_leaving_is_not_cancelling(bench: Bench) -> None:
    """A reader that closes changes nothing: the request finishes, and can be read later."""
    submitted = await bench.submit()
    call = await bench.call()
    async with Follower(submitted.handle.stream) as follower:
        await follower.next()
    await call.say("all of it")
    handle = await bench.router.ask(GetRequest(submitted.handle.request_id), timeout=5)
    assert (await read(handle.stream))[0] == "all of it"


async def test_an_abandoned_request_is_cancelled_after_the_grace_period(bench: Bench) -> None:
    """`onAbandon: cancel` waits for a new reader for the grace period, then cancels the call."""
    submitted = await bench.submit(on_abandon="cancel")
    call = await bench.call()
    async with Follower(submitted.handle.stream) as follower:
        await follower.next()
        await bench.system.advance(11)
    assert not call.cancelled.is_set()
    await bench.system.advance(5)
    assert not call.cancelled.is_set()
    await bench.system.advance(6)
    await call.cancelled.wait()
    assert isinstance((await read(submitted.handle.stream))[1], Cancelled)


async def test_each_leaving_restarts_the_grace_period(bench: Bench) -> None:
    """A reader that comes back, as a polling client does, restarts the grace period when it leaves."""
    submitted = await bench.submit(on_abandon="cancel")
    call = await bench.call()
    for _ in range(5):
        await bench.system.advance(9)
        async with Follower(submitted.handle.stream) as follower:
            await follower.next()
    await bench.system.advance(9)
    assert not call.cancelled.is_set()
    await bench.system.advance(2)
    await call.cancelled.wait()


async def test_a_failure_is_the_end_and_is_not_cached(bench: Bench) -> None:
    """A failed run has one terminal entry with its code; the next request starts a new run."""
    submitted = await bench.submit()
    call = await bench.call()
    call.outcome.set_exception(ProviderError("broke", code="provider_stream_broken"))
    _, end = await read(submitted.handle.stream)
    assert isinstance(end, Failed)
    assert end.code == "provider_stream_broken"
    assert submitted.handle.state().assistant_status == "failed"
    assert (await bench.submit()).handle.source == "upstream"


async def test_a_run_ends_at_its_deadline(bench: Bench) -> None:
    """The deadline ends the run as failed, and cancels the call."""
    submitted = await bench.submit(timeout=2.0)
    call = await bench.call()
    await bench.system.advance(3)
    _, end = await read(submitted.handle.stream)
    assert isinstance(end, Failed)
    assert (end.code, end.message) == ("deadline_exceeded", "The request ran out of time (2,000 ms)")
    await call.cancelled.wait()


async def test_a_joined_request_with_less_time_ends_alone(bench: Bench) -> None:
    """A joined request has its own deadline; the run goes on for the request with more time."""
    first = await bench.submit(timeout=60.0)
    second = await bench.submit(timeout=1.0)
    call = await bench.call()
    await bench.system.advance(2)
    _, end = await read(second.handle.stream)
    assert isinstance(end, Failed)
    assert (end.code, end.message) == (DeadlineExceeded.code, "The request ran out of time (1,000 ms)")
    await call.say("late")
    assert (await read(first.handle.stream))[0] == "late"


async def test_an_unknown_model_is_refused_before_anything_starts(bench: Bench) -> None:
    """The submission fails, and there is no request."""
    with pytest.raises(NotFound, match="no model 'unknown'") as caught:
        await bench.submit(msgspec.structs.replace(HELLO, model="unknown"))
    assert caught.value.code == "model_not_found"
    assert bench.calls.empty()


async def test_ended_requests_are_dropped_after_the_ttl() -> None:
    """State and log stay for `ttl` seconds after the end; then the id is unknown."""
    async with TestSystem() as system:
        bench = Bench(system, ttl=0.0)
        submitted = await bench.submit()
        await (await bench.call()).say("x")
        await read(submitted.handle.stream)
        await system.settle()
        with pytest.raises(NotFound):
            await bench.router.ask(GetRequest(submitted.handle.request_id), timeout=5)


async def test_a_full_store_drops_the_oldest_end_first_and_refuses_when_all_are_running() -> None:
    """The number of requests is bounded: ended ones are dropped, running ones are not."""
    async with TestSystem() as system:
        bench = Bench(system, max_requests=2)
        first = await bench.submit(dedupe=False)
        await (await bench.call()).say("x")
        await read(first.handle.stream)
        await system.settle()
        await bench.submit(dedupe=False)
        await bench.submit(dedupe=False)
        with pytest.raises(NotFound):
            await bench.router.ask(GetRequest(first.handle.request_id), timeout=5)
        with pytest.raises(Overloaded, match="2 requests are running"):
            await bench.submit(dedupe=False)


async def test_a_stopped_system_ends_every_run() -> None:
    """Followers get `shutting_down` as the end."""
    async with TestSystem() as system:
        bench = Bench(system)
        submitted = await bench.submit()
        await bench.call()
    _, end = await read(submitted.handle.stream)
    assert isinstance(end, Failed)
    assert end.code == "shutting_down"


async def test_the_requests_are_awaited_and_ended(bench: Bench) -> None:
    """A stop counts the running requests, waits for them, ends those that are left, and begins no new one."""
    first, _ = await bench.submit(), await bench.submit()
    call, asking = await bench.call(), bench.router.ask(AwaitRequests(), timeout=5)
    second = await bench.submit(dedupe=False)
    assert await bench.router.ask(CountRequests(), timeout=5) == 3
    waiting = asyncio.ensure_future(asking)
    await call.say("an end of its own")
    await bench.system.settle()
    assert not waiting.done()
    assert await bench.router.ask(EndRequests(), timeout=5) == 1
    await waiting
    assert (await read(first.handle.stream))[0] == "an end of its own"
    end = (await read(second.handle.stream))[1]
    assert isinstance(end, Failed)
    assert (end.code, end.temporary, end.retry_after_ms) == ("shutting_down", True, 1000)
    await (await bench.call()).cancelled.wait()
    with pytest.raises(ShuttingDown):
        await bench.submit(dedupe=False)
    assert await bench.router.ask(CountRequests(), timeout=5) == 0
    await bench.router.ask(AwaitRequests(), timeout=5)


async def test_a_submission_under_way_is_not_begun_after_the_end() -> None:
    """A submission that waits for the cache when the requests are ended is refused."""
    async with TestSystem() as system:
        gateway = system.probe(Complete, ResolveModel, name="gateway")
        gateway.reply(ResolveModel, ModelInfo("default", "p"))
        cache = system.probe(CacheGet, CachePut, CacheDelete, name="cache")
        router = system.spawn(lambda: RequestRouter(gateway=gateway.ref, cache=cache.ref), name="router")
        asking = asyncio.ensure_future(router.ask(Submit(request=HELLO), timeout=5))
        await cache.expect(CacheGet)
        assert await router.ask(EndRequests(), timeout=5) == 0
        await system.advance(1.0)
        with pytest.raises(ShuttingDown):
            await asking


def test_internal_errors_do_not_show_their_text() -> None:
    """A terminal event has no internal error text."""
    from actors.requests.failure import failure  # noqa: PLC0415

    assert failure(RuntimeError("secret")).message == "Internal error"
    assert failure(ProviderError("said so", retry_after=1.5)).retry_after_ms == 1500
    assert isinstance(ProviderError(), TidegateError)


async def test_an_abandoned_joined_request_ends_alone(bench: Bench) -> None:
    """`onAbandon` is each request's own: the run goes on for the other request."""
    first = await bench.submit()
    second = await bench.submit(on_abandon="cancel")
    call = await bench.call()
    await bench.system.advance(11)
    assert second.handle.state().assistant_status == "cancelled"
    assert not call.cancelled.is_set()
    await call.say("done")
    assert (await read(first.handle.stream))[0] == "done"


async def test_an_unshared_answer_is_not_cached(bench: Bench) -> None:
    """An answer without `dedupe` is not cached."""
    alone = await bench.submit(dedupe=False)
    await (await bench.call()).say("mine")
    await read(alone.handle.stream)
    assert (await bench.submit()).handle.source == "upstream"


async def test_an_answer_with_an_unknown_finish_reason_is_not_cached(bench: Bench) -> None:
    """It completes the request, and the next one starts a new run."""
    submitted = await bench.submit()
    call = await bench.call()
    call.outcome.set_result(Completion(finish_reason="other", raw_finish_reason="news", provider="p"))
    _, end = await read(submitted.handle.stream)
    assert isinstance(end, Completed)
    assert (end.finish_reason, end.raw_finish_reason) == ("other", "news")
    assert (await bench.submit()).handle.source == "upstream"


async def test_an_actor_that_fails_ends_its_run_once(bench: Bench) -> None:
    """An internal error ends the run once, the gateway is not asked twice, and the next request starts a new run."""
    submitted = await bench.submit()
    call = await bench.call()
    call.outcome.set_result(Completion(parts=("no part",), result=msgspec.Raw(b"{}")))  # type: ignore[arg-type]
    await bench.system.advance(5)
    _, end = await read(submitted.handle.stream)
    assert isinstance(end, Failed)
    assert end.code == "internal_error"
    assert bench.calls.empty()
    assert (await bench.submit()).handle.source == "upstream"


async def test_no_end_is_lost_when_the_router_is_busy(bench: Bench) -> None:
    """A thousand runs that end while the router's mailbox is full all end, and none can be joined any more."""
    many = [await bench.submit(msgspec.structs.replace(HELLO, seed=number), cache_ttl=0.0) for number in range(1000)]
    calls = [await bench.call() for _ in many]
    asks = [asyncio.ensure_future(bench.submit(msgspec.structs.replace(HELLO, seed=5000 + n))) for n in range(900)]
    for call in calls:
        call.outcome.set_result(Completion(parts=(TextPart(text="x"),)))
    for submitted in many:
        assert isinstance((await read(submitted.handle.stream))[1], Completed)
    await asyncio.gather(*asks)
    again = await bench.submit(msgspec.structs.replace(HELLO, seed=0), cache_ttl=0.0)
    assert again.handle.source == "upstream"


async def test_the_gateway_gets_the_tenant_and_the_options(bench: Bench) -> None:
    """It gets the tenant, for fair queueing, and whether content may be taken back."""
    await bench.submit(tenant="acme", on_attempt_failed="restart", repair=True)
    call = await bench.call()
    assert (call.complete.tenant, call.complete.restart, call.complete.repair) == ("acme", True, True)
    await call.say("hi")


async def test_the_gateway_is_asked_again_after_forget_models() -> None:
    """After new routes, the gateway is asked for each model again, and an unknown one is refused."""
    asked: list[str] = []

    def resolve(message: ResolveModel) -> ModelInfo:
        asked.append(message.model)
        return ModelInfo(message.model, "p")

    async with TestSystem() as system:
        gateway = system.probe(Complete, ResolveModel, name="gateway")
        gateway.reply(ResolveModel, resolve)
        gateway.reply(Complete, Completion(parts=(TextPart(text="hi"),)))
        router = system.spawn(lambda: RequestRouter(gateway=gateway.ref), name="router")
        for _ in range(2):
            await router.ask(Submit(request=HELLO, delivery=Delivery(dedupe=False)), timeout=5)
        assert asked == ["default"]
        await router.tell(ForgetModels())
        gateway.reply(ResolveModel, NotFound(code="model_not_found"))
        with pytest.raises(NotFound):
            await router.ask(Submit(request=HELLO, delivery=Delivery(dedupe=False)), timeout=5)


async def test_delivery_options_do_not_separate_requests(bench: Bench) -> None:
    """Deadline, cache TTL, abandonment, session and metadata are not part of the fingerprint."""
    await bench.submit()
    other = await bench.submit(timeout=5.0, cache_ttl=1.0, on_abandon="cancel", session_id="s", metadata={"a": "b"})
    assert other.handle.source == "joined"


async def test_a_late_joiner_reads_the_same_log_from_the_first_entry(bench: Bench) -> None:
    """Entries, offsets, epoch and usage are shared; cost and attempts are the first request's."""
    first = await bench.submit()
    call = await bench.call()
    await call.tell(Delta(text="early "))
    late = await bench.submit()
    assert late.handle.stream.since(0) == first.handle.stream.since(0)
    assert late.handle.stream.epoch == first.handle.stream.epoch
    await call.say("end")
    assert (await read(late.handle.stream))[0] == "early end"
    assert late.handle.state().usage == first.handle.state().usage == Usage(output_tokens=1)
    assert (late.handle.state().cost, late.handle.attempts) == (Cost(usd=Decimal(0)), ())


async def test_a_replay_is_a_log_of_its_own(bench: Bench) -> None:
    """A replay has the same events, entry by entry, in a new epoch."""
    first = await bench.submit()
    await (await bench.call()).say("one ", "answer")
    await read(first.handle.stream)
    again = await bench.submit()
    before, after = first.handle.stream.since(0), again.handle.stream.since(0)
    assert [entry.event for entry in after] == [entry.event for entry in before]
    assert again.handle.stream.epoch != first.handle.stream.epoch


async def test_a_log_that_exceeds_its_budget_is_cached() -> None:
    """An answer of any length is replayed entry by entry, from the first one."""
    async with TestSystem() as system:
        bench = Bench(system, ring_bytes=2000)
        first = await bench.submit()
        await (await bench.call()).say(*["x" * 500] * 10)
        assert (await read(first.handle.stream))[0] == "x" * 5000
        again = await bench.submit()
        assert again.handle.source == "cache"
        assert (await read(again.handle.stream)) == (await read(first.handle.stream))
        assert [event_of(again, offset) for offset in range(12)] == [event_of(first, offset) for offset in range(12)]


def event_of(submitted: Submitted, after: int) -> object:
    """Return the event after an offset."""
    return submitted.handle.stream.since(after)[0].event


async def test_a_slow_cache_counts_as_a_miss() -> None:
    """After a second without a reply the gateway is asked."""
    async with TestSystem() as system:
        gateway = system.probe(Complete, ResolveModel, name="gateway")
        gateway.reply(ResolveModel, ModelInfo("default", "p"))
        gateway.reply(Complete, Completion(parts=(TextPart(text="hi"),)))
        cache = system.probe(CacheGet, CachePut, CacheDelete, name="cache")
        router = system.spawn(lambda: RequestRouter(gateway=gateway.ref, cache=cache.ref), name="router")
        asking = asyncio.ensure_future(router.ask(Submit(request=HELLO), timeout=5))
        await cache.expect(CacheGet)
        await system.advance(1.0)
        assert (await asking).handle.source == "upstream"
        await cache.expect(CachePut)


async def test_a_router_that_fails_ends_its_runs_and_serves_again(bench: Bench) -> None:
    """An internal error ends the router's runs with `shutting_down`, and the restarted router takes new requests."""
    submitted = await bench.submit()
    call = await bench.call()
    with pytest.raises(ActorFailed):
        await bench.router.ask(GetRequest(["no", "id"]), timeout=5)  # type: ignore[arg-type]
    await bench.system.advance(5)
    _, end = await read(submitted.handle.stream)
    assert isinstance(end, Failed)
    assert end.code == "shutting_down"
    await call.cancelled.wait()
    again = await bench.submit()
    await (await bench.call()).say("here again")
    assert (await read(again.handle.stream))[0] == "here again"
