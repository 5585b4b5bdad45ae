"""Requests that are deleted, kept for a time of their own, or given a seed, over HTTP and the socket."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest

from tests.service.bench import BODY, Service, dashed, open_service, read_events, text_of

SURE = BODY | {"options": {"temperature": 0}}

ONE, TWO = "the-first-of-two-keys", "the-second-of-two-keys"


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service with a gateway that the test scripts."""
    async with open_service() as running:
        yield running


async def delete(service: Service, request_id: str, **headers: str) -> tuple[int, bytes]:
    """Delete a request; return the status and the body."""
    async with service.client.delete(f"{service.base}/api/requests/{request_id}", headers=dashed(headers)) as got:
        return got.status, await got.read()


async def test_a_running_request_is_cancelled_and_gone(service: Service) -> None:
    """204 without a body; followers of the stream and of the socket get the end; then everything is 404."""
    request_id = await service.submit()
    call = await service.call()
    stream = await service.follow(request_id)
    socket = await service.client.ws_connect(f"{service.base}/ws")
    await socket.send_json({"type": "subscribe", "id": 1, "requestId": request_id})
    assert (await socket.receive_json())["type"] == "ack"
    await call.say("half")
    assert await delete(service, request_id) == (204, b"")
    await call.cancelled.wait()
    events = await read_events(stream)
    assert text_of(events) == "half"
    assert events[-1].data["error"]["code"] == "cancelled"
    async with asyncio.timeout(5):
        frame = await socket.receive_json()
        while not frame.get("terminal"):
            frame = await socket.receive_json()
    assert (frame["type"], frame["error"]["code"]) == ("error", "cancelled")
    await socket.send_json({"type": "subscribe", "id": 2, "requestId": request_id})
    assert (await socket.receive_json())["error"]["code"] == "request_not_found"
    for path in ("", "/events"):
        assert (await service.get(f"/api/requests/{request_id}{path}")).status == 404
    assert (await service.post(f"/api/requests/{request_id}/cancel", None)).status == 404
    assert (await service.get(f"/v1/responses/resp_{request_id}")).status == 404


async def test_deleting_again_is_404(service: Service) -> None:
    """As for an id that never was: 204 says that something was deleted."""
    request_id = await service.answered("x")
    assert (await delete(service, request_id))[0] == 204
    assert (await delete(service, request_id))[0] == 404
    assert (await delete(service, "req_nonsense"))[0] == 404


async def test_nothing_of_the_answer_comes_back(service: Service) -> None:
    """Neither the cache nor the idempotency key returns it."""
    first = await service.post("/api/requests", BODY, idempotency_key="k")
    request_id = (await first.json())["requestId"]
    call = await service.call()
    await call.say("secret")
    await call.end()
    await read_events(await service.follow(request_id))
    await delete(service, request_id)
    again = await service.post("/api/requests", BODY, idempotency_key="k")
    assert (again.status, again.headers["x-tidegate-source"]) == (202, "upstream")
    assert (await again.json())["requestId"] != request_id
    await service.call()


async def test_another_callers_answer_is_not_cut(service: Service) -> None:
    """Two callers share a call: each has a request of its own, and only that is deleted."""
    mine, theirs = await service.submit(), await service.submit()
    call = await service.call()
    stream = await service.follow(theirs)
    assert (await delete(service, mine))[0] == 204
    await call.say("whole")
    await call.end()
    assert text_of(await read_events(stream)) == "whole"
    assert (await service.state(theirs))["assistantStatus"] == "completed"


async def test_another_tenant_deletes_nothing() -> None:
    """The id is 404 there, and the request goes on."""
    async with open_service(api_keys=f"{ONE},{TWO}") as service:
        response = await service.post("/api/requests", BODY, x_api_key=ONE)
        request_id = (await response.json())["requestId"]
        assert (await delete(service, request_id, x_api_key=TWO))[0] == 404
        assert (await service.get(response.headers["Location"], x_api_key=ONE)).status == 200
        assert (await delete(service, request_id))[0] == 401


async def test_a_request_has_a_time_of_its_own(service: Service) -> None:
    """It counts from the end, and is seen in `expiresAt`; the default is the service's."""
    request_id = await service.submit(options={"ttlMs": 60_000})
    assert (await service.state(request_id))["expiresAt"] is None
    call = await service.call()
    await call.say("x")
    await call.end()
    await read_events(await service.follow(request_id))
    assert await seconds_left(service, request_id) == pytest.approx(60, abs=1)
    replayed = await service.submit()
    assert await seconds_left(service, replayed) == pytest.approx(300, abs=1)


async def seconds_left(service: Service, request_id: str) -> float:
    """Return the seconds from a request's last change to its expiry."""
    state = await service.state(request_id)
    return (datetime.fromisoformat(state["expiresAt"]) - datetime.fromisoformat(state["updatedAt"])).total_seconds()


@pytest.mark.parametrize("ttl", [0, -1, 999, 300_001, 86_400_001, 10**400, "x", 1.5])
async def test_a_time_beyond_the_services_is_refused(service: Service, ttl: Any) -> None:  # noqa: ANN401
    """400 names the field, and nothing runs."""
    response = await service.post("/api/requests", BODY | {"options": {"ttlMs": ttl}})
    problem = await response.json(content_type="application/problem+json")
    assert (response.status, problem["errors"][0]["path"]) == (400, "$.options.ttlMs")
    assert service.calls.empty()


async def test_each_request_has_a_seed(service: Service) -> None:
    """A made-up one shares as before, and goes to the gateway with temperature 0 only."""
    first, joined = await service.submit(), await service.submit()
    seeds = {(await service.state(request_id))["seed"] for request_id in (first, joined)}
    assert len(seeds) == 1
    assert all(isinstance(seed, int) for seed in seeds)
    assert (await service.call()).complete.seed is None
    sure = await service.submit(**SURE)
    complete = (await service.call()).complete
    assert (complete.seed, complete.request.seed) == ((await service.state(sure))["seed"], None)
    assert service.calls.empty()


async def test_a_made_up_seed_does_not_share_on_the_vendors_endpoints(service: Service) -> None:
    """Two sampled calls without a seed are two calls."""
    chat = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    asking = [asyncio.ensure_future(service.post("/v1/chat/completions", chat)) for _ in range(2)]
    for call in (await service.call(), await service.call()):
        await call.say("x")
        await call.end()
    assert [response.headers["x-tidegate-source"] for response in await asyncio.gather(*asking)] == ["upstream"] * 2
