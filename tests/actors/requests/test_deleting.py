"""Requests that are deleted, that have a time to live of their own, or a seed that was made up."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from actors.requests.router import RequestRouter
from actors.runtime import Actor, handles
from actors.runtime.testing import TestSystem
from protocol.cache import CacheDelete, CachedLog, CacheGet, CachePut
from protocol.errors import AskTimeout, InvalidRequest, NotFound
from protocol.events import Cancelled, Completed, Delta
from protocol.gateway import Complete, Completion, ModelInfo, ResolveModel
from protocol.llm import TextPart
from protocol.requests import DeleteRequest, GetRequest, Submit
from tests.actors.requests.test_router import HELLO, Bench, read

SURE = msgspec.structs.replace(HELLO, temperature=0.0)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """A router whose gateway the test controls."""
    async with TestSystem() as system:
        yield Bench(system)


async def test_a_running_request_is_cancelled_and_forgotten(bench: Bench) -> None:
    """Its followers get what came and then the end, its call is cancelled, and its id is unknown at once."""
    submitted = await bench.submit()
    call = await bench.call()
    await call.tell(Delta(text="a"))
    reading = asyncio.ensure_future(read(submitted.handle.stream))
    await bench.delete(submitted)
    assert not await bench.find(submitted)
    assert await reading == ("a", Cancelled(reason="deleted"))
    await call.cancelled.wait()
    assert (await bench.submit()).handle.source == "upstream"


async def test_a_deleted_request_is_there_no_second_time(bench: Bench) -> None:
    """Deleting it again is as deleting what never was; another tenant deletes nothing."""
    submitted = await bench.submit()
    with pytest.raises(NotFound):
        await bench.delete(submitted, tenant="b")
    assert await bench.find(submitted)
    await bench.delete(submitted)
    for _ in range(2):
        with pytest.raises(NotFound, match="there is no request"):
            await bench.delete(submitted)


async def test_deleting_at_the_same_moment_twice_is_one_deletion(bench: Bench) -> None:
    """Both are told that it is gone."""
    submitted = await bench.submit()
    await (await bench.call()).say("x")
    await read(submitted.handle.stream)
    await asyncio.gather(bench.delete(submitted), bench.delete(submitted))
    assert not await bench.find(submitted)


async def test_the_answer_of_a_deleted_request_is_not_in_the_cache(bench: Bench) -> None:
    """The next identical request makes a call of its own."""
    first = await bench.submit()
    await (await bench.call()).say("x")
    await read(first.handle.stream)
    replayed = await bench.submit()
    assert replayed.handle.source == "cache"
    await bench.delete(replayed)
    assert await bench.find(first)
    assert (await bench.submit()).handle.source == "upstream"


async def test_its_key_is_free(bench: Bench) -> None:
    """A submission with its idempotency key is a new one, also with another body."""
    first = await bench.submit(key="k", dedupe=False)
    await bench.delete(first)
    second = await bench.submit(msgspec.structs.replace(HELLO, seed=1), key="k", dedupe=False)
    assert not second.replayed
    assert second.handle.request_id != first.handle.request_id


async def test_others_that_share_the_call_go_on(bench: Bench) -> None:
    """One deletes its request, the other one gets the whole answer; nobody gets it from the cache."""
    first, second = await bench.submit(), await bench.submit()
    call = await bench.call()
    await bench.delete(first)
    assert not await bench.find(first)
    assert (await read(first.handle.stream))[1] == Cancelled(reason="deleted")
    assert not call.cancelled.is_set()
    await call.say("one")
    text, end = await read(second.handle.stream)
    assert (text, type(end)) == ("one", Completed)
    assert await bench.find(second)
    assert (await bench.submit()).handle.source == "upstream"


async def test_a_request_that_left_its_run_is_deleted(bench: Bench) -> None:
    """After its own end, while others still share the call."""
    first, second = await bench.submit(), await bench.submit()
    await bench.cancel(first)
    await bench.delete(first)
    await (await bench.call()).say("one")
    assert isinstance((await read(second.handle.stream))[1], Completed)
    assert not await bench.find(first)


class BusyCache(Actor[CacheGet | CachePut | CacheDelete]):
    """A cache that stores nothing before it is released."""

    capacity = 1
    overflow = "wait"

    def __init__(self, log: list[object], released: asyncio.Event) -> None:
        self.log = log
        self.released = released

    @handles(CacheGet)
    async def get(self, _: CacheGet) -> CachedLog | None:
        return None

    @handles(CachePut)
    async def put(self, message: CachePut) -> None:
        await self.released.wait()
        self.log.append(message)

    @handles(CacheDelete)
    async def delete(self, message: CacheDelete) -> bool:
        self.log.append(message)
        return True


async def test_an_answer_that_is_being_cached_is_taken_back() -> None:
    """A deletion in the moment of the end leaves nothing in the cache."""
    async with TestSystem() as system:
        gateway = system.probe(Complete, ResolveModel, name="gateway")
        gateway.reply(ResolveModel, ModelInfo("default", "p"))
        log: list[object] = []
        released = asyncio.Event()
        cache = system.spawn(lambda: BusyCache(log, released), name="cache")
        router = system.spawn(lambda: RequestRouter(gateway=gateway.ref, cache=cache), name="router")
        submitted = await router.ask(Submit(request=HELLO), timeout=5)
        await gateway.expect(ResolveModel)
        complete = await gateway.expect(Complete)
        other = CachePut(b"other", CachedLog(pages=(), completed=Completed()), 1.0)
        await cache.tell(other)
        await system.settle()
        await cache.tell(other)
        gateway.answer(complete, Completion(parts=(TextPart(text="x"),)))
        await system.settle()
        assert not submitted.handle.stream.ended
        deleting = asyncio.ensure_future(router.ask(DeleteRequest(submitted.handle.request_id), timeout=5))
        await system.settle()
        released.set()
        await deleting
        await system.settle()
        mine = [type(message) for message in log if getattr(message, "key", b"") != b"other"]
        assert CachePut in mine
        assert mine[-1] is CacheDelete
        assert submitted.handle.stream.ended


async def test_a_request_whose_answer_can_not_be_taken_back_stays() -> None:
    """Where the cache does not answer the deletion fails, and may be repeated."""
    async with TestSystem() as system:
        gateway = system.probe(Complete, ResolveModel, name="gateway")
        gateway.reply(ResolveModel, ModelInfo("default", "p"))
        gateway.reply(Complete, Completion(parts=(TextPart(text="x"),)))
        cache = system.probe(CacheGet, CachePut, CacheDelete, name="cache")
        cache.reply(CacheGet, None)
        router = system.spawn(lambda: RequestRouter(gateway=gateway.ref, cache=cache.ref), name="router")
        submitted = await router.ask(Submit(request=HELLO), timeout=5)
        await read(submitted.handle.stream)
        await cache.expect(CacheGet)
        await cache.expect(CachePut)
        delete = DeleteRequest(submitted.handle.request_id)
        deleting = asyncio.ensure_future(router.ask(delete, timeout=5))
        await cache.expect(CacheDelete)
        await system.advance(1.0)
        with pytest.raises(AskTimeout):
            await deleting
        await router.ask(GetRequest(delete.request_id), timeout=5)
        cache.reply(CacheDelete, True)
        await router.ask(delete, timeout=5)
        with pytest.raises(NotFound):
            await router.ask(GetRequest(delete.request_id), timeout=5)


async def test_an_abandoned_request_is_deleted_with_its_timer(bench: Bench) -> None:
    """Nothing happens at the end of its grace period."""
    submitted = await bench.submit(on_abandon="cancel", dedupe=False)
    await bench.delete(submitted)
    await bench.system.advance(20.0)
    assert not await bench.find(submitted)


@pytest.mark.parametrize("ttl", [0.0, -1.0, 300.1, float("nan"), float("inf")])
async def test_a_ttl_is_within_the_routers_own(bench: Bench, ttl: float) -> None:
    """A longer one is refused with the bound, and nothing is called."""
    with pytest.raises(InvalidRequest, match=r"`ttlMs` must be within 1000\.\.300000") as refused:
        await bench.submit(ttl=ttl)
    assert [error.path for error in refused.value.errors] == ["$.options.ttlMs"]
    assert bench.calls.empty()


async def test_each_request_of_a_run_has_its_own_ttl(bench: Bench) -> None:
    """It counts from the end, and the state says when it is over."""
    short, long = await bench.submit(ttl=2.0), await bench.submit()
    assert short.handle.state().expires_at is None
    await (await bench.call()).say("x")
    await read(long.handle.stream)
    times = [handle.state().expires_at for handle in (short.handle, long.handle)]
    assert times[0] is not None
    assert times[1] is not None
    assert (times[1] - times[0]).total_seconds() == pytest.approx(298.0, abs=0.1)


async def test_a_made_up_seed_is_the_same_for_equal_requests(bench: Bench) -> None:
    """Each has a seed; joined and replayed ones have that of the answer; the caller's own is kept."""
    first, joined = await bench.submit(), await bench.submit()
    await (await bench.call()).say("x")
    await read(first.handle.stream)
    replayed = await bench.submit()
    other = await bench.submit(msgspec.structs.replace(HELLO, model="other"))
    own = await bench.submit(msgspec.structs.replace(HELLO, seed=-7))
    seeds = [submitted.handle.state().seed for submitted in (first, joined, replayed, other, own)]
    assert replayed.handle.source == "cache"
    assert len(set(seeds[:3])) == 1
    assert 0 <= seeds[0] < 2**31
    assert seeds[3] != seeds[0]
    assert seeds[4] == -7


async def test_a_made_up_seed_is_sent_where_the_answer_is_meant_to_be_the_same(bench: Bench) -> None:
    """With temperature 0 the gateway gets it beside the request, which stays as it was; otherwise it gets none."""
    sure = await bench.submit(SURE)
    complete = (await bench.call()).complete
    assert (complete.request.seed, complete.seed) == (None, sure.handle.state().seed)
    for request in (HELLO, msgspec.structs.replace(SURE, seed=3), msgspec.structs.replace(HELLO, temperature=0.5)):
        await bench.submit(request)
        assert (await bench.call()).complete.seed is None
