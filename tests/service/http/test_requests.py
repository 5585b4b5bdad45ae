"""The native API: submit, state, cancel."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from protocol.errors import PROBLEMS, ProviderError
from tests.service.bench import BODY, Service, open_service, read_events, text_of

SAME = BODY | {"options": {"temperature": 0}}


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service with a gateway that the test scripts."""
    async with open_service(max_body_bytes=4000) as running:
        yield running


async def test_a_submission_is_accepted_with_the_way_on(service: Service) -> None:
    """202 has the request's id, the position to follow from, and the links."""
    response = await service.post("/api/requests", BODY)
    accepted = await response.json()
    request_id = accepted["requestId"]
    address = f"/api/requests/{request_id}"
    assert response.status == 202
    assert response.headers["Location"] == address
    assert response.headers["x-request-id"] == request_id
    assert response.headers["x-tidegate-source"] == "upstream"
    assert float(response.headers["x-tidegate-overhead-ms"]) > 0
    assert "x-tidegate-cost-usd" not in response.headers
    assert len(response.headers["x-trace-id"]) == 32
    assert accepted["assistantStatus"] == "pending"
    assert accepted["position"]["offset"] == 0
    assert accepted["links"] == {
        "self": address,
        "events": f"{address}/events",
        "cancel": f"{address}/cancel",
        "socket": "/ws",
    }
    call = await service.call()
    await call.say("yes")
    await call.end()
    position = "{epoch}:{offset}".format(**accepted["position"])
    events = await read_events(await service.follow(request_id, f"?after={position}"))
    assert text_of(events) == "yes"


async def test_the_caller_s_own_name_for_the_call_is_kept(service: Service) -> None:
    """A caller that sends ``x-request-id`` and ``x-trace-id`` gets them back."""
    response = await service.post("/api/requests", BODY, x_request_id="mine-1", x_trace_id="ab" * 16)
    assert (response.headers["x-request-id"], response.headers["x-trace-id"]) == ("mine-1", "ab" * 16)
    accepted = await response.json()
    assert (await service.state(accepted["requestId"]))["traceId"] == "ab" * 16


async def test_the_state_tells_how_far_it_is(service: Service) -> None:
    """From pending over running to completed, field by field."""
    request_id = await service.submit(sessionId="s1", options={"seed": 7})
    state = await service.state(request_id)
    assert (state["assistantStatus"], state["coreResult"], state["expiresAt"]) == ("pending", None, None)
    call = await service.call()
    stream = await service.follow(request_id, "?mode=live")
    await call.say("Hel")
    await stream.content.readuntil(b"\n\n")
    assert (await service.state(request_id))["assistantStatus"] == "running"
    await call.say("lo")
    await call.end()
    await stream.read()
    state = await service.state(request_id)
    assert (state["assistantStatus"], state["sessionId"], state["seed"]) == ("completed", "s1", 7)
    assert state["coreResult"]["text"] == "Hello"
    assert state["usage"]["outputTokens"] == 2
    assert state["position"]["offset"] == 4
    assert [attempt["provider"] for attempt in state["attempts"]] == ["p"]
    assert (state["source"], state["cost"]) == ("upstream", None)
    assert "error" not in state


async def test_a_failure_is_part_of_the_state(service: Service) -> None:
    """A failed request is found, with its code and remedy."""
    request_id = await service.submit()
    await (await service.call()).fail(ProviderError("it fell over"))
    await read_events(await service.follow(request_id))
    state = await service.state(request_id)
    assert state["assistantStatus"] == "failed"
    assert state["error"] == {"code": "provider_error", "message": "it fell over", "temporary": True}


async def test_an_idempotency_key_gives_the_same_request(service: Service) -> None:
    """A repeated key is 200 with a header and one upstream call; with another body it is refused."""
    first = await service.post("/api/requests", BODY, idempotency_key="k 1")
    again = await service.post("/api/requests", BODY, idempotency_key="k 1")
    other = await service.post("/api/requests", BODY | {"sessionId": "s"}, idempotency_key="k 1")
    assert (first.status, again.status, other.status) == (202, 200, 422)
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (await first.json())["requestId"] == (await again.json())["requestId"]
    problem = await other.json(content_type="application/problem+json")
    assert problem["code"] == "idempotency_key_reused"
    await service.call()
    assert service.calls.empty()


async def test_cancel_is_accepted_again_and_again(service: Service) -> None:
    """202 with the state, running or ended; the upstream call is closed, and the log has the end."""
    request_id = await service.submit()
    call = await service.call()
    stream = await service.follow(request_id)
    response = await service.post(f"/api/requests/{request_id}/cancel", None)
    assert response.status == 202
    assert (await response.json())["requestId"] == request_id
    await call.cancelled.wait()
    events = await read_events(stream)
    assert events[-1].event == "error"
    assert events[-1].data["error"]["code"] == "cancelled"
    again = await service.client.post(f"{service.base}/api/requests/{request_id}/cancel")
    assert again.status == 202
    assert (await again.json())["assistantStatus"] == "cancelled"


async def test_cancelling_one_changes_nothing_for_the_others(service: Service) -> None:
    """Cancelling a joined request leaves the others running."""
    one, two = await service.submit(**SAME), await service.submit(**SAME)
    call = await service.call()
    await service.post(f"/api/requests/{one}/cancel", None)
    assert (await service.state(one))["assistantStatus"] == "cancelled"
    await call.say("for two")
    await call.end()
    assert text_of(await read_events(await service.follow(two))) == "for two"
    assert ((await service.state(two))["source"], service.calls.empty()) == ("joined", True)
    assert (await read_events(await service.follow(one)))[-1].data["error"]["code"] == "cancelled"


async def test_a_request_outlives_the_connection_that_submitted_it(service: Service) -> None:
    """A client that disconnects before the answer finds it later."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(service.base.rpartition(":")[2]))
    body = json.dumps(BODY).encode()
    writer.write(b"POST /api/requests HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
    writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
    headers = (await reader.readuntil(b"\r\n\r\n")).decode()
    address = next(line for line in headers.splitlines() if line.startswith("Location")).split()[1]
    writer.transport.abort()
    call = await service.call()
    await call.say("still here")
    await call.end()
    events = await read_events(await service.client.get(f"{service.base}{address}/events"))
    assert text_of(events) == "still here"


async def test_nobody_sees_the_request_of_another_key() -> None:
    """Another tenant's request is not found: neither its state, nor its events, nor to cancel."""
    async with open_service(api_keys="the-first-of-two-keys,the-second-of-two-keys") as service:
        response = await service.post("/api/requests", BODY, x_api_key="the-first-of-two-keys")
        address = response.headers["Location"]
        assert (await service.get(address, x_api_key="the-first-of-two-keys")).status == 200
        assert (await service.get(address)).status == 401
        for answer in (
            await service.get(address, x_api_key="the-second-of-two-keys"),
            await service.get(f"{address}/events", x_api_key="the-second-of-two-keys"),
            await service.post(f"{address}/cancel", None, x_api_key="the-second-of-two-keys"),
        ):
            assert answer.status == 404


BAD: list[tuple[str, str, Any, dict[str, str], int, str]] = [
    ("POST", "/api/requests", b"{", {}, 400, "malformed_json"),
    ("POST", "/api/requests", b"", {}, 400, "malformed_json"),
    ("POST", "/api/requests", b"[]", {}, 400, "invalid_request"),
    ("POST", "/api/requests", BODY | {"stream": True}, {}, 400, "invalid_request"),
    ("POST", "/api/requests", {"messages": []}, {}, 400, "invalid_request"),
    ("POST", "/api/requests", BODY | {"options": {"temperature": 3}}, {}, 400, "invalid_request"),
    ("POST", "/api/requests", BODY | {"schema": {"type": "objekt"}}, {}, 400, "invalid_schema"),
    ("POST", "/api/requests", BODY | {"schema": "no object"}, {}, 400, "invalid_request"),
    ("POST", "/api/requests", BODY | {"model": "unknown"}, {}, 404, "model_not_found"),
    ("POST", "/api/requests", BODY | {"sessionId": "x" * 5000}, {}, 413, "body_too_large"),
    ("POST", "/api/requests", BODY, {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
    ("POST", "/api/requests", BODY, {"Idempotency-Key": "k" * 256}, 400, "invalid_request"),
    ("GET", "/api/requests", None, {}, 405, "method_not_allowed"),
    ("GET", "/api/requests/req_0", None, {}, 404, "request_not_found"),
    ("GET", "/api/requests/req_0/events", None, {}, 404, "request_not_found"),
    ("POST", "/api/requests/req_0/cancel", None, {}, 404, "request_not_found"),
    ("GET", "/api/requests/{id}/events?after=7", None, {}, 400, "invalid_position"),
    ("GET", "/api/requests/{id}/events?after=", None, {}, 400, "invalid_position"),
    ("GET", "/api/requests/{id}/events?after={epoch}:-1", None, {}, 400, "invalid_position"),
    ("GET", "/api/requests/{id}/events", None, {"Last-Event-ID": "seven"}, 400, "invalid_position"),
    ("GET", "/api/requests/{id}/events?mode=fast", None, {}, 400, "invalid_request"),
    ("GET", "/api/requests/{id}/events?mode=", None, {}, 400, "invalid_request"),
    ("GET", "/api/requests/{id}/events?after=foreign1:0", None, {}, 410, "unrecoverable_position"),
    ("GET", "/api/requests/{id}/events?after=foreign1:0&mode=replay", None, {}, 410, "unrecoverable_position"),
    ("GET", "/api/requests/{id}/events?after={epoch}:99", None, {}, 410, "unrecoverable_position"),
    ("GET", "/api/requests/{id}/events?after={epoch}:99&mode=snapshot", None, {}, 410, "unrecoverable_position"),
    ("GET", "/api/requests/{id}/events?after={epoch}:99&mode=live", None, {}, 410, "unrecoverable_position"),
    ("GET", "/api/requests/{id}/events", None, {"Last-Event-ID": "{epoch}:99"}, 410, "unrecoverable_position"),
]


@pytest.mark.parametrize(("method", "path", "body", "headers", "status", "code"), BAD)
async def test_bad_input_is_a_problem_with_a_remedy(
    service: Service, method: str, path: str, body: object, headers: dict[str, str], status: int, code: str
) -> None:
    """Each error has its status, code and remedy; and the service stays usable."""
    accepted = await (await service.post("/api/requests", BODY)).json()
    request_id, epoch = accepted["requestId"], accepted["position"]["epoch"]
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    address = service.base + path.replace("{id}", request_id).replace("{epoch}", epoch)
    sent = {"Content-Type": "application/json"} if data is not None else {}
    sent |= {name: value.replace("{epoch}", epoch) for name, value in headers.items()}
    async with service.client.request(method, address, data=data, headers=sent) as response:
        problem = await response.json(content_type="application/problem+json")
    assert (response.status, problem["status"], problem["code"]) == (status, status, code)
    assert problem["remedy"] == PROBLEMS[code].remedy
    assert problem["requestId"] == response.headers["x-request-id"]
    assert problem["traceId"] == response.headers["x-trace-id"]
    assert (await service.get(f"/api/requests/{request_id}")).status == 200
    assert await service.submit()
