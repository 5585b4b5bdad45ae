"""One tenant at its worst: it fills each bounded table, and takes nothing that is another's.

The bounds are small, and all work is counted: requests, keys, calls to the model.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import count
from typing import Any, Final

import pytest
from aiohttp import ClientWebSocketResponse

from actors.cache import CacheLimits, LogStore
from actors.channels.overrides import MAX_OVERRIDES, PresenceOverride, PresenceOverrides
from actors.embeddings.vector_cache import ENTRY_BYTES, VectorCache
from actors.fair_shares import Tenants
from actors.upstream.concurrency import ConcurrencyLimiter
from protocol.cache import CachedLog
from protocol.errors import Overloaded
from protocol.events import Completed
from service.auth.keys import tenant_of
from service.auth.tickets import MAX_TICKETS
from tests.service.bench import BODY, Service, open_service

WORST: Final = "the-key-of-the-worst"
OTHER: Final = "the-key-of-the-other"
TENANTS: Final = 4
ROWS: Final = 40
FLOOR: Final = ROWS // TENANTS
NAMED: Final = Tenants(TENANTS, named=["worst", "other"], open=False)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service with small bounds, and two keys that are tenants of their own."""
    async with open_service(
        api_keys=f"{WORST},{OTHER}",
        max_tenants=TENANTS,
        max_requests=ROWS,
        max_idempotency_keys=ROWS,
        max_channels=ROWS,
        max_subscriptions=ROWS,
        request_ttl_seconds=3600,
    ) as service:
        yield service


async def post(service: Service, key: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
    """Post JSON with a key; return the status and the JSON of the response."""
    response = await service.post(path, body, x_api_key=key, **headers)
    return response.status, await response.json() if response.status != 204 else None


async def submit(service: Service, key: str, text: str = "hi", name: str = "", **options: object) -> tuple[int, Any]:
    """Submit a request with a key, and with an idempotency key where there is a ``name``."""
    body = {"messages": [{"role": "user", "content": text}], "options": options}
    return await post(service, key, "/api/requests", body, **({"Idempotency_Key": name} if name else {}))


async def finished(service: Service, key: str, text: str = "hi", name: str = "", **options: object) -> str:
    """Submit a request, answer it, wait for its end, and return its id."""
    status, handle = await submit(service, key, text, name, **options)
    assert status == 202
    call = await service.call()
    await call.say("yes")
    await call.end()
    response = await service.follow(handle["requestId"], x_api_key=key)
    async with response:
        await response.read()
    return str(handle["requestId"])


async def test_joined_requests_leave_room_for_another_tenant(service: Service) -> None:
    """The same slow request many times is one call, and each is a row: the floor of the other key stays free."""
    statuses = [(await submit(service, WORST, "slow"))[0] for _ in range(2 * ROWS)]
    assert statuses.count(202) == ROWS - FLOOR
    assert set(statuses) == {202, 503}
    assert service.calls.qsize() == 1
    await service.call()
    for number in range(FLOOR):
        assert (await submit(service, OTHER, f"{number}"))[0] == 202
    assert (await submit(service, OTHER, "more"))[0] == 503
    assert service.calls.qsize() == FLOOR


async def test_replays_evict_no_request_and_no_key_of_another_tenant(service: Service) -> None:
    """Many replays from the cache: the other's finished requests are found, and its key runs nothing again."""
    ids = [await finished(service, OTHER, f"{number}", f"key-{number}", dedupe=False) for number in range(FLOOR)]
    await finished(service, WORST, "flood")
    assert [(await submit(service, WORST, "flood"))[0] for _ in range(5 * ROWS)] == [202] * 5 * ROWS
    for number, request_id in enumerate(ids):
        assert (await service.get(f"/api/requests/{request_id}", x_api_key=OTHER)).status == 200
        status, handle = await submit(service, OTHER, f"{number}", f"key-{number}", dedupe=False)
        assert (status, handle["requestId"]) == (200, request_id)
    assert service.calls.empty()


async def test_a_key_whose_request_was_evicted_runs_nothing_again(service: Service) -> None:
    """A tenant that evicts its own request gets 410 for its key, with how the request has ended."""
    request_id = await finished(service, WORST, "mine", "key", dedupe=False)
    await finished(service, WORST, "flood")
    for _ in range(2 * ROWS):
        await submit(service, WORST, "flood")
    assert (await service.get(f"/api/requests/{request_id}", x_api_key=WORST)).status == 404
    status, problem = await submit(service, WORST, "mine", "key", dedupe=False)
    assert (status, problem["code"]) == (410, "request_gone")
    assert f"{request_id} of this key is completed" in problem["detail"]
    assert (await submit(service, WORST, "another body", "key", dedupe=False))[0] == 422
    assert service.calls.empty()


async def test_keys_are_never_evicted(service: Service) -> None:
    """A tenant has its part of the keys; one more is 503, and the other's part is as it was."""
    await finished(service, WORST, "flood")
    statuses = [(await submit(service, WORST, "flood", f"key-{number}"))[0] for number in range(ROWS)]
    assert statuses == [202] * (ROWS // 2) + [503] * (ROWS // 2)
    assert (await submit(service, WORST, "flood", "key-0"))[0] in (200, 410)
    assert (await submit(service, OTHER, "mine", "key-0"))[0] == 202


async def test_tickets_of_one_tenant_refuse_no_other(service: Service) -> None:
    """All tickets are one tenant's: it gets no more, and another one gets one, which opens a socket."""
    principal = await service.container.auth.authenticate(WORST)
    for _ in range(MAX_TICKETS):
        service.container.auth.issue_ticket(principal)
    assert (await post(service, WORST, "/api/tickets"))[0] == 503
    status, answer = await post(service, OTHER, "/api/tickets")
    assert status in (200, 201)
    async with service.client.ws_connect(f"{service.base}/ws?ticket={answer['ticket']}") as socket:
        await socket.send_json({"type": "ping", "id": 1})
        assert (await socket.receive_json())["type"] == "pong"


async def subscribe(socket: ClientWebSocketResponse, **fields: object) -> str:
    """Subscribe a socket to a channel, and return the code of the refusal; empty for none."""
    await socket.send_json({"type": "subscribe", **fields})
    while (frame := await socket.receive_json()).get("id") != fields["id"]:
        pass
    return str(frame["error"]["code"]) if frame["type"] == "error" else ""


async def flood(service: Service, stack: AsyncExitStack, channel: str) -> list[str]:
    """Subscribe two sockets of the worst tenant to as many channels as there are, and return the refusals."""
    refused = []
    for number in range(2):
        headers = {"x-api-key": WORST}
        socket = await stack.enter_async_context(service.client.ws_connect(f"{service.base}/ws", headers=headers))
        refused += [await subscribe(socket, id=i, channel=channel.format(number, i)) for i in range(ROWS)]
    return refused


@pytest.mark.parametrize("channel", ["{0}-{1}", "c{1}"], ids=["channels of its own", "channels that are there"])
async def test_subscriptions_and_channels_of_one_tenant_refuse_no_other(service: Service, channel: str) -> None:
    """Sockets of one tenant use all channels and subscriptions: another one publishes, and subscribes."""
    async with AsyncExitStack() as stack:
        refused = await flood(service, stack, channel)
        assert refused.count("") == ROWS - FLOOR
        assert set(refused) == {"", "overloaded"}
        for number in range(FLOOR):
            path = f"/api/channels/mine-{number}/publish"
            assert (await post(service, OTHER, path, {"event": "e", "data": {}}))[0] == 202
        assert (await post(service, WORST, "/api/channels/more/publish", {"event": "e"}))[0] == 503
        headers = {"x-api-key": OTHER}
        socket = await stack.enter_async_context(service.client.ws_connect(f"{service.base}/ws", headers=headers))
        assert [await subscribe(socket, id=i, channel=f"mine-{i}") for i in range(FLOOR)] == [""] * FLOOR


async def test_a_closed_socket_gives_its_subscriptions_back(service: Service) -> None:
    """Nothing stays counted for sockets that have gone."""
    for _ in range(3):
        async with AsyncExitStack() as stack:
            refused = await flood(service, stack, "c{1}")
            assert refused.count("") == ROWS - FLOOR


async def test_histories_of_one_tenant_drop_none_of_another() -> None:
    """Bytes of histories are shared: the publications of the other tenant stay within its floor."""
    async with open_service(
        api_keys=f"{WORST},{OTHER}", max_tenants=TENANTS, channels_max_bytes=ROWS * 1024
    ) as service:
        await post(service, OTHER, "/api/channels/mine/publish", {"event": "e", "data": "x" * 1000})
        for number in range(200):
            await post(service, WORST, f"/api/channels/c{number}/publish", {"event": "e", "data": "x" * 1000})
        history = await (await service.get("/api/channels/mine/history", x_api_key=OTHER)).json()
        assert len(history["publications"]) == 1


async def test_waiting_calls_of_one_tenant_refuse_no_other() -> None:
    """A full queue is one tenant's: another one's call waits, and is next in turn."""
    limiter = ConcurrencyLimiter("p", concurrency=1, queue=256)
    await limiter.acquire("worst")
    worst = [asyncio.ensure_future(limiter.acquire("worst")) for _ in range(400)]
    await asyncio.sleep(0)
    other = [asyncio.ensure_future(limiter.acquire("other")) for _ in range(100)]
    await asyncio.sleep(0)
    assert limiter.queued == 256
    assert not any(task.done() for task in other)
    for _ in range(2):
        limiter.release()
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sum(task.done() for task in other) == 1
    for task in (*worst, *other):
        task.cancel()
    refused = await asyncio.gather(*worst, *other, return_exceptions=True)
    assert sum(isinstance(error, Overloaded) for error in refused) == 400 - 256 + 100


def test_cached_answers_of_one_tenant_evict_none_of_another() -> None:
    """Number and bytes are shared; the largest tenant loses its own least recently used answers."""
    log = CachedLog(pages=(), completed=Completed())
    for limits in (
        CacheLimits(max_entries=ROWS, max_bytes=10**9),
        CacheLimits(max_entries=10**6, max_bytes=ROWS * log.size),
    ):
        store, keys = LogStore(limits, NAMED), [b"%d" % number for number in range(FLOOR)]
        for key in keys:
            store.put(key, log, 60, "other")
        for number in range(10 * ROWS):
            store.put(b"w%d" % number, log, 60, "worst")
        assert all(store.get(key, "other") for key in keys)
        assert (len(store), store.stats().evictions) == (ROWS, 9 * ROWS + FLOOR)


def test_vectors_of_one_tenant_evict_none_of_another() -> None:
    """The bytes of vectors are shared in the same way."""
    cache = VectorCache(ROWS * (ENTRY_BYTES + 4), NAMED)
    for number in range(FLOOR):
        cache.put(b"%d" % number, b"1234", "other")
    for number in range(10 * ROWS):
        cache.put(b"w%d" % number, b"1234", "worst")
    assert all(cache.get(b"%d" % number, "other") for number in range(FLOOR))
    assert len(cache) == ROWS


def test_presence_that_one_tenant_sets_refuses_no_other() -> None:
    """A tenant sets what is free but for the floors of the others."""
    overrides, numbers = PresenceOverrides(Tenants(TENANTS, named=["worst", "other"], open=False)), count()
    override = PresenceOverride("online", b"", None, 60.0, 60.0)

    def fill(tenant: str) -> int:
        for number in range(2 * MAX_OVERRIDES):
            try:
                overrides.put((tenant, f"user-{next(numbers)}"), override, 0.0)
            except Overloaded:
                return number
        return -1

    assert fill("worst") == MAX_OVERRIDES - MAX_OVERRIDES // TENANTS
    assert fill("other") == MAX_OVERRIDES // TENANTS


async def test_a_service_without_keys_has_all_of_each_bound() -> None:
    """There is one tenant: nothing is kept for others."""
    async with open_service(max_requests=ROWS, max_tenants=TENANTS) as service:
        statuses = [(await service.post("/api/requests", BODY)).status for _ in range(ROWS + 1)]
        assert statuses == [202] * ROWS + [503]


async def test_a_new_key_is_a_tenant_from_then_on(service: Service) -> None:
    """The tenants of the keys have floors, and the anonymous caller has none where there are keys."""
    tenants = service.container.auth._keys.tenants  # type: ignore[attr-defined]
    assert tenants.named == {tenant_of(WORST), tenant_of(OTHER)}
    assert not tenants.open
