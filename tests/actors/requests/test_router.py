"""Which log answers a submission, and who ends when."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import msgspec
import pytest

from actors.cache import CacheActor
from actors.log.follow import Follower
from actors.requests.limits import RequestLimits
from actors.requests.router import ForgetModels, RequestRouter
from actors.runtime import Actor, Deferred, Ref, handles
from actors.runtime.testing import TestSystem
from protocol.cache import CacheGet, CachePut
from protocol.errors import (
    ActorFailed,
    DeadlineExceeded,
    IdempotencyKeyReused,
    NotFound,
    Overloaded,
    ProviderError,
    TidegateError,
)
from protocol.events import Cancelled, Completed, Content, Delta, Entry, EventStream, Failed, Snapshot, Terminal
from protocol.gateway import Complete, Completion, ModelInfo, Progress, ResolveModel
from protocol.llm import Attempt, ChatMessage, ChatRequest, Cost, Usage
from protocol.requests import CancelRequest, Delivery, GetRequest, RequestHandle, Submit

HELLO = ChatRequest(model="default", messages=(ChatMessage(role="user", content="hello"),))


class Call:
    """One call of the gateway, in the test's hand."""

    def __init__(self, complete: Complete) -> None:
        self.complete = complete
        self.cancelled = asyncio.Event()
        self.outcome: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()

    async def tell(self, *events: Content) -> None:
        """Tell the run of content."""
        assert self.complete.sink is not None
        await self.complete.sink.tell(Progress(events=events, waited=0.25))

    async def say(self, *texts: str) -> None:
        """Tell the run of these texts and finish."""
        await self.tell(*(Delta(text=text) for text in texts))
        usage = Usage(output_tokens=len(texts))
        assert self.complete.sink is not None
        await self.complete.sink.tell(Progress(attempt=Attempt(provider="p", model="m", usage=usage)))
        self.outcome.set_result(Completion(text="".join(texts), usage=usage, provider="p"))


class HandGateway(Actor[Complete | ResolveModel]):
    """A gateway whose calls a test answers by hand."""

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
    """A router with a cache and a gateway by hand."""

    def __init__(self, system: TestSystem, **options: float) -> None:
        self.system = system
        self.calls: asyncio.Queue[Call] = asyncio.Queue(1000)
        gateway = system.spawn(lambda: HandGateway(self.calls), name="llm-gateway")
        cache = system.spawn(CacheActor, name="cache")
        self.router: Ref[Submit | GetRequest | CancelRequest] = system.spawn(
            lambda: RequestRouter(gateway=gateway, cache=cache, limits=RequestLimits(**options)),  # type: ignore[arg-type]
            name="request-router",
        )

    async def submit(
        self, request: ChatRequest = HELLO, *, tenant: str = "", key: str = "", **delivery: object
    ) -> "Kept":
        """Submit and return what came of it."""
        message = Submit(
            request=request,
            tenant=tenant,
            idempotency_key=key,
            delivery=Delivery(**delivery),  # type: ignore[arg-type]
        )
        submitted = await self.router.ask(message, timeout=5)
        return Kept(submitted.handle, submitted.replayed)

    async def call(self) -> Call:
        """Return the next call that reaches the gateway."""
        return await self.calls.get()

    async def cancel(self, kept: "Kept") -> None:
        """Cancel a request."""
        await self.router.ask(CancelRequest(kept.handle.request_id), timeout=5)


class Kept(msgspec.Struct):
    """A submission's outcome."""

    handle: RequestHandle
    replayed: bool

    @property
    def source(self) -> str:
        """Where the answer comes from."""
        return self.handle.source


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """Give a router whose gateway is in the test's hand."""
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


async def test_a_request_runs_and_its_log_tells_everything(bench: Bench) -> None:
    """A submission starts a run: its tokens and its end come as one log, its state says the same."""
    kept = await bench.submit()
    assert kept.handle.state().assistant_status == "pending"
    call = await bench.call()
    await call.say("Hel", "lo")
    text, end = await read(kept.handle.stream)
    assert text == "Hello"
    assert isinstance(end, Completed)
    state = kept.handle.state()
    assert state.assistant_status == "completed"
    assert state.source == "upstream"
    assert state.usage.output_tokens == 2
    assert state.core_result is not None
    assert msgspec.json.decode(state.core_result) == {"text": "Hello", "toolCalls": []}
    assert kept.handle.upstream_wait == 0.25


async def test_a_hundred_at_once_share_one_call_and_the_next_one_is_replayed(bench: Bench) -> None:
    """Identical requests in flight become one call; a later one needs none. Each says where its answer came from."""
    many = await asyncio.gather(*(bench.submit() for _ in range(100)))
    call = await bench.call()
    readers = [asyncio.ensure_future(read(kept.handle.stream)) for kept in many]
    await call.say("one ", "answer")
    results = await asyncio.gather(*readers)
    assert [text for text, _ in results] == ["one answer"] * 100
    assert sorted(kept.source for kept in many) == ["joined"] * 99 + ["upstream"]
    assert len({kept.handle.request_id for kept in many}) == 100
    later = await bench.submit()
    assert later.source == "cache"
    assert (await read(later.handle.stream))[0] == "one answer"
    assert bench.calls.empty()


async def test_nothing_is_shared_across_tenants(bench: Bench) -> None:
    """Neither a run nor a cached log crosses from one tenant to another, and neither sees the other's requests."""
    one, two = await bench.submit(tenant="a"), await bench.submit(tenant="b")
    assert (one.source, two.source) == ("upstream", "upstream")
    await (await bench.call()).say("x")
    await read(one.handle.stream)
    assert (await bench.submit(tenant="c")).source == "upstream"
    with pytest.raises(NotFound, match="there is no request"):
        await bench.router.ask(GetRequest(one.handle.request_id, "b"), timeout=5)


async def test_dedupe_off_makes_a_call_of_its_own(bench: Bench) -> None:
    """A request that does not want to share neither joins, nor is joined, nor is replayed."""
    assert [(await bench.submit(dedupe=False)).source for _ in range(2)] == ["upstream", "upstream"]
    assert (await bench.submit()).source == "upstream"


async def test_an_idempotency_key_names_one_request(bench: Bench) -> None:
    """The same key with the same body is the same request; with another body it is refused."""
    first = await bench.submit(key="k", dedupe=False)
    again = await bench.submit(key="k", dedupe=False)
    assert again.replayed
    assert again.handle.request_id == first.handle.request_id
    other = msgspec.structs.replace(HELLO, seed=1)
    with pytest.raises(IdempotencyKeyReused):
        await bench.submit(other, key="k", dedupe=False)
    assert (await bench.submit(key="k", dedupe=False, tenant="b")).replayed is False


async def test_an_idempotency_key_counts_also_while_the_first_is_being_looked_up(bench: Bench) -> None:
    """Two submissions with one key at the same moment are one request."""
    one, two = await asyncio.gather(bench.submit(key="k", dedupe=False), bench.submit(key="k", dedupe=False))
    assert one.handle.request_id == two.handle.request_id


async def test_cancelling_one_waiter_changes_nothing_for_the_others(bench: Bench) -> None:
    """The one that cancels gets its own end; the run and the others go on."""
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


async def test_the_last_waiter_that_cancels_ends_the_call(bench: Bench) -> None:
    """With nobody left the upstream call is given up, and whoever comes after that starts anew."""
    first, second = await bench.submit(), await bench.submit()
    call = await bench.call()
    await bench.cancel(first)
    await bench.cancel(second)
    fresh = await bench.submit()
    await call.cancelled.wait()
    assert fresh.source == "upstream"
    assert isinstance((await read(second.handle.stream))[1], Cancelled)


async def test_cancel_is_idempotent_and_leaves_an_end_as_it_is(bench: Bench) -> None:
    """Cancelling what has ended changes nothing."""
    kept = await bench.submit()
    await (await bench.call()).say("x")
    await read(kept.handle.stream)
    await bench.cancel(kept)
    await bench.cancel(kept)
    assert kept.handle.state().assistant_status == "completed"


async def test_leaving_is_not_cancelling(bench: Bench) -> None:
    """A reader that goes away changes nothing; the request finishes for whoever comes back."""
    kept = await bench.submit()
    call = await bench.call()
    async with Follower(kept.handle.stream) as follower:
        await follower.next()
    await call.say("all of it")
    handle = await bench.router.ask(GetRequest(kept.handle.request_id), timeout=5)
    assert (await read(handle.stream))[0] == "all of it"


async def test_an_abandoned_request_is_cancelled_after_a_grace_where_it_asked_for_that(bench: Bench) -> None:
    """`onAbandon: cancel` gives a reader time to come back, and then gives up the call."""
    kept = await bench.submit(on_abandon="cancel")
    call = await bench.call()
    async with Follower(kept.handle.stream) as follower:
        await follower.next()
        await bench.system.advance(11)
    assert not call.cancelled.is_set()
    await bench.system.advance(5)
    assert not call.cancelled.is_set()
    await bench.system.advance(6)
    await call.cancelled.wait()
    assert isinstance((await read(kept.handle.stream))[1], Cancelled)


async def test_who_leaves_again_gives_all_of_the_grace_again(bench: Bench) -> None:
    """A reader that comes and goes, as one that polls does, is not taken at its word of the time before."""
    kept = await bench.submit(on_abandon="cancel")
    call = await bench.call()
    for _ in range(5):
        await bench.system.advance(9)
        async with Follower(kept.handle.stream) as follower:
            await follower.next()
    await bench.system.advance(9)
    assert not call.cancelled.is_set()
    await bench.system.advance(2)
    await call.cancelled.wait()


async def test_a_failure_is_the_end_and_is_not_cached(bench: Bench) -> None:
    """A failed run has one terminal entry with its code; the next request tries anew."""
    kept = await bench.submit()
    call = await bench.call()
    call.outcome.set_exception(ProviderError("broke", code="provider_stream_broken"))
    _, end = await read(kept.handle.stream)
    assert isinstance(end, Failed)
    assert end.code == "provider_stream_broken"
    assert kept.handle.state().assistant_status == "failed"
    assert (await bench.submit()).source == "upstream"


async def test_a_run_ends_at_its_deadline(bench: Bench) -> None:
    """Out of time is an end like any other, and it gives up the call."""
    kept = await bench.submit(timeout=2.0)
    call = await bench.call()
    await bench.system.advance(3)
    _, end = await read(kept.handle.stream)
    assert isinstance(end, Failed)
    assert end.code == "deadline_exceeded"
    await call.cancelled.wait()


async def test_one_who_joined_with_less_time_ends_alone(bench: Bench) -> None:
    """A joined request keeps its own deadline; the run goes on for the one that has more time."""
    first = await bench.submit(timeout=60.0)
    second = await bench.submit(timeout=1.0)
    call = await bench.call()
    await bench.system.advance(2)
    _, end = await read(second.handle.stream)
    assert isinstance(end, Failed)
    assert end.code == DeadlineExceeded.code
    await call.say("late")
    assert (await read(first.handle.stream))[0] == "late"


async def test_an_unknown_model_is_refused_before_anything_starts(bench: Bench) -> None:
    """The submission itself fails; there is no request to look at."""
    with pytest.raises(NotFound, match="no model 'unknown'") as caught:
        await bench.submit(msgspec.structs.replace(HELLO, model="unknown"))
    assert caught.value.code == "model_not_found"
    assert bench.calls.empty()


async def test_ended_requests_are_dropped_after_their_time() -> None:
    """State and log live for `ttl` seconds after the end; then the id is unknown."""
    async with TestSystem() as system:
        bench = Bench(system, ttl=0.0)
        kept = await bench.submit()
        await (await bench.call()).say("x")
        await read(kept.handle.stream)
        await system.settle()
        with pytest.raises(NotFound):
            await bench.router.ask(GetRequest(kept.handle.request_id), timeout=5)


async def test_a_full_store_drops_the_oldest_end_first_and_refuses_when_all_are_running() -> None:
    """The number of kept requests is bounded: ended ones make room, running ones do not."""
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
    """Whoever still follows is told that the server goes."""
    async with TestSystem() as system:
        bench = Bench(system)
        kept = await bench.submit()
        await bench.call()
    _, end = await read(kept.handle.stream)
    assert isinstance(end, Failed)
    assert end.code == "shutting_down"


def test_errors_of_the_runtime_do_not_show_their_inside() -> None:
    """What ends a log is safe to show."""
    from actors.requests.state import failure  # noqa: PLC0415

    assert failure(RuntimeError("secret")).message == "Internal error"
    assert failure(ProviderError("said so", retry_after=1.5)).retry_after_ms == 1500
    assert isinstance(ProviderError(), TidegateError)


async def test_one_who_joined_and_is_abandoned_leaves_alone(bench: Bench) -> None:
    """`onAbandon` is each request's own: the run goes on for the one who wants it finished."""
    first = await bench.submit()
    second = await bench.submit(on_abandon="cancel")
    call = await bench.call()
    await bench.system.advance(11)
    assert second.handle.state().assistant_status == "cancelled"
    assert not call.cancelled.is_set()
    await call.say("done")
    assert (await read(first.handle.stream))[0] == "done"


async def test_an_answer_that_was_not_to_be_shared_is_not_kept_for_others(bench: Bench) -> None:
    """Without `dedupe` the answer does not go into the cache either."""
    alone = await bench.submit(dedupe=False)
    await (await bench.call()).say("mine")
    await read(alone.handle.stream)
    assert (await bench.submit()).source == "upstream"


async def test_an_actor_that_fails_ends_its_run_once(bench: Bench) -> None:
    """A fault of ours is an end like any other, nothing is asked twice, and the next request starts anew."""
    kept = await bench.submit()
    call = await bench.call()
    call.outcome.set_result(Completion(tool_calls=("no call",)))  # type: ignore[arg-type]
    await bench.system.advance(5)
    _, end = await read(kept.handle.stream)
    assert isinstance(end, Failed)
    assert end.code == "internal_error"
    assert bench.calls.empty()
    assert (await bench.submit()).source == "upstream"


async def test_no_end_is_lost_when_the_router_is_busy(bench: Bench) -> None:
    """A thousand runs that end while the router has a full mailbox all end, and none can be joined any more."""
    many = [await bench.submit(msgspec.structs.replace(HELLO, seed=number), cache_ttl=0.0) for number in range(1000)]
    calls = [await bench.call() for _ in many]
    asks = [asyncio.ensure_future(bench.submit(msgspec.structs.replace(HELLO, seed=5000 + n))) for n in range(900)]
    for call in calls:
        call.outcome.set_result(Completion(text="x"))
    for kept in many:
        assert isinstance((await read(kept.handle.stream))[1], Completed)
    await asyncio.gather(*asks)
    again = await bench.submit(msgspec.structs.replace(HELLO, seed=0), cache_ttl=0.0)
    assert again.source == "upstream"


async def test_the_gateway_learns_whose_run_it_is(bench: Bench) -> None:
    """So that it can share a provider's places fairly, and knows whether content may be taken back."""
    await bench.submit(tenant="acme", on_attempt_failed="restart", repair=True)
    call = await bench.call()
    assert (call.complete.tenant, call.complete.restart, call.complete.repair) == ("acme", True, True)
    await call.say("hi")


async def test_models_that_are_forgotten_are_asked_for_again() -> None:
    """A name that other routes have done away with is refused where it is submitted."""
    asked: list[str] = []

    def resolve(message: ResolveModel) -> ModelInfo:
        asked.append(message.model)
        return ModelInfo(message.model, "p")

    async with TestSystem() as system:
        gateway = system.probe(Complete, ResolveModel, name="gateway")
        gateway.reply(ResolveModel, resolve)
        gateway.reply(Complete, Completion(text="hi"))
        router = system.spawn(lambda: RequestRouter(gateway=gateway.ref), name="router")
        for _ in range(2):
            await router.ask(Submit(request=HELLO, delivery=Delivery(dedupe=False)), timeout=5)
        assert asked == ["default"]
        await router.tell(ForgetModels())
        gateway.reply(ResolveModel, NotFound(code="model_not_found"))
        with pytest.raises(NotFound):
            await router.ask(Submit(request=HELLO, delivery=Delivery(dedupe=False)), timeout=5)


async def test_what_only_concerns_the_delivery_does_not_part_requests(bench: Bench) -> None:
    """Deadline, time in the cache, abandonment, session and notes are each request's own; the call is one."""
    await bench.submit()
    other = await bench.submit(timeout=5.0, cache_ttl=1.0, on_abandon="cancel", session_id="s", metadata={"a": "b"})
    assert other.source == "joined"


async def test_who_joins_late_reads_the_same_log_from_its_beginning(bench: Bench) -> None:
    """Entries, offsets, epoch and usage are shared; the cost and the attempts are the first one's."""
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
    """What was said comes again entry by entry, under a new epoch."""
    first = await bench.submit()
    await (await bench.call()).say("one ", "answer")
    await read(first.handle.stream)
    again = await bench.submit()
    before, after = first.handle.stream.since(0), again.handle.stream.since(0)
    assert [entry.event for entry in after] == [entry.event for entry in before]
    assert again.handle.stream.epoch != first.handle.stream.epoch


async def test_a_log_that_outgrew_its_ring_is_not_kept() -> None:
    """Only a log that is there from its first entry can be replayed."""
    async with TestSystem() as system:
        bench = Bench(system, ring_bytes=2000)
        first = await bench.submit()
        await (await bench.call()).say(*["x" * 500] * 10)
        assert (await read(first.handle.stream))[0] == "x" * 5000
        assert (await bench.submit()).source == "upstream"


async def test_a_slow_cache_counts_as_one_that_has_nothing() -> None:
    """The model is asked after a second."""
    async with TestSystem() as system:
        gateway = system.probe(Complete, ResolveModel, name="gateway")
        gateway.reply(ResolveModel, ModelInfo("default", "p"))
        gateway.reply(Complete, Completion(text="hi"))
        cache = system.probe(CacheGet, CachePut, name="cache")
        router = system.spawn(lambda: RequestRouter(gateway=gateway.ref, cache=cache.ref), name="router")
        asking = asyncio.ensure_future(router.ask(Submit(request=HELLO), timeout=5))
        await cache.expect(CacheGet)
        await system.advance(1.0)
        assert (await asking).handle.source == "upstream"
        await cache.expect(CachePut)


async def test_a_router_that_fails_ends_its_runs_and_serves_again(bench: Bench) -> None:
    """A fault of ours in the router costs what it kept, not the service: readers are told, new requests are taken."""
    kept = await bench.submit()
    call = await bench.call()
    with pytest.raises(ActorFailed):
        await bench.router.ask(GetRequest(["no", "id"]), timeout=5)  # type: ignore[arg-type]
    await bench.system.advance(5)
    _, end = await read(kept.handle.stream)
    assert isinstance(end, Failed)
    assert end.code == "shutting_down"
    await call.cancelled.wait()
    again = await bench.submit()
    await (await bench.call()).say("here again")
    assert (await read(again.handle.stream))[0] == "here again"
