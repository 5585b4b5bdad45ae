"""The middleware around every handler."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from structlog.testing import capture_logs

from protocol.errors import ActorFailed, FieldError, InvalidRequest, Overloaded, ProviderError
from service.auth.authenticator import Authenticator
from service.auth.keys import KeyRing, tenant_of
from service.context import call_of
from service.lifecycle import Lifecycle
from service.middleware.calls import call_layer, stamp_responses

Client = TestClient[web.Request, web.Application]
MakeClient = Callable[..., Awaitable[Client]]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


async def _echo(request: web.Request) -> web.Response:
    call = call_of(request)
    return web.json_response({"requestId": call.request_id, "traceId": call.trace_id, "tenant": call.tenant})


async def _invalid(request: web.Request) -> web.Response:
    raise InvalidRequest("No messages", errors=[FieldError("$.messages", "is empty")])


async def _full(request: web.Request) -> web.Response:
    raise Overloaded(retry_after=1.2)


async def _upstream(request: web.Request) -> web.Response:
    raise ProviderError(code="provider_timeout")


async def _bug(request: web.Request) -> web.Response:
    secret = "in a local variable"
    raise RuntimeError(f"with a secret {len(secret)}")


async def _failed_actor(request: web.Request) -> web.Response:
    raise ActorFailed("usage failed") from ValueError("a secret row")


async def _body(request: web.Request) -> web.Response:
    return web.json_response({"size": len(await request.read())})


async def _broken_stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"some")
    raise RuntimeError


async def _socket(request: web.Request) -> web.Response:
    call = call_of(request)
    return web.json_response({"authenticated": call.authenticated, "tenant": call.tenant})


@pytest.fixture
async def lifecycle() -> Lifecycle:
    """A running service."""
    lifecycle = Lifecycle()
    lifecycle.serve()
    return lifecycle


@pytest.fixture
async def connect(lifecycle: Lifecycle) -> AsyncIterator[MakeClient]:
    """Yield a client of an application with only the middleware and some handlers."""
    clients: list[Client] = []

    async def make(*keys: str) -> Client:
        app = web.Application(
            middlewares=[call_layer(Authenticator(KeyRing(keys)), lifecycle, None)], client_max_size=1024
        )
        app.on_response_prepare.append(stamp_responses(lifecycle))
        app.router.add_get("/echo/{name}", _echo)
        app.router.add_get("/invalid", _invalid)
        app.router.add_get("/full", _full)
        app.router.add_get("/bug", _bug)
        app.router.add_get("/actor", _failed_actor)
        app.router.add_get("/v1/actor", _failed_actor)
        app.router.add_get("/stream", _broken_stream)
        app.router.add_get("/ws", _socket)
        app.router.add_get("/api/health", _echo)
        app.router.add_post("/body", _body)
        app.router.add_post("/v1/chat/completions", _upstream)
        app.router.add_get("/v1/full", _full)
        client = TestClient(TestServer(app))
        clients.append(client)
        await client.start_server()
        return client

    yield make
    for client in clients:
        await client.close()


async def _problem(response: aiohttp.ClientResponse) -> dict[str, Any]:
    assert response.content_type == "application/problem+json"
    problem: dict[str, Any] = await response.json()
    assert problem["status"] == response.status
    assert problem["type"] == f"/errors/{problem['code']}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["remedy"]
    assert problem["requestId"] == response.headers["x-request-id"]
    assert problem["traceId"] == response.headers["x-trace-id"]
    return problem


async def test_every_response_carries_the_ids(connect: MakeClient) -> None:
    """The handler and the caller see the same ids: the caller's own, or new ones."""
    client = await connect()
    first, second = [await client.get("/echo/x") for _ in range(2)]
    body = await first.json()
    assert body["requestId"] == first.headers["x-request-id"]
    assert body["traceId"] == first.headers["x-trace-id"]
    assert body["requestId"].startswith("req_")
    assert len(body["traceId"]) == 32
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert first.headers["Server"] == "tidegate"


@pytest.mark.parametrize(
    ("sent", "kept"), [("my-id_1", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ('"', False)]
)
async def test_a_sane_request_id_is_kept(connect: MakeClient, sent: str, kept: bool) -> None:
    """The caller's request id is used if it has only allowed characters."""
    client = await connect()
    response = await client.get("/echo/x", headers={"x-request-id": sent})
    assert (response.headers["x-request-id"] == sent) is kept


@pytest.mark.parametrize(
    ("headers", "trace"),
    [
        ({"traceparent": PARENT}, TRACE),
        ({"x-trace-id": TRACE}, TRACE),
        ({"x-trace-id": TRACE.upper()}, TRACE),
        ({"traceparent": PARENT, "x-trace-id": "a" * 32}, TRACE),
        ({"x-trace-id": "0" * 32}, None),
        ({"x-trace-id": "order 17, second try"}, "order 17, second try"),
        ({"x-trace-id": "x" * 128}, "x" * 128),
        ({"x-trace-id": "x" * 129}, None),
        ({"x-trace-id": "a\tb"}, None),
        ({"traceparent": PARENT, "x-trace-id": "order-17"}, TRACE),
        ({"traceparent": f"ff-{TRACE}-00f067aa0ba902b7-01"}, None),
        ({"traceparent": f"00-{TRACE}-{'0' * 16}-01"}, None),
        ({"traceparent": "00-nonsense"}, None),
    ],
)
async def test_the_trace_id_is_the_callers(connect: MakeClient, headers: dict[str, str], trace: str | None) -> None:
    """``traceparent`` wins, then ``x-trace-id``, which may be any printable text; malformed headers are ignored."""
    client = await connect()
    got = (await client.get("/echo/x", headers=headers)).headers["x-trace-id"]
    assert got == (trace or got)
    assert trace or (len(got) == 32 and got not in headers.values() and got != TRACE)


async def test_a_failure_is_a_problem_with_all_its_members(connect: MakeClient) -> None:
    """An error has its code, remedy, ids and the wrong fields."""
    client = await connect()
    response = await client.get("/invalid")
    problem = await _problem(response)
    assert response.status == 400
    assert problem["detail"] == "No messages"
    assert problem["errors"] == [{"path": "$.messages", "message": "is empty"}]
    assert "retryAfterMs" not in problem


async def test_a_failure_that_will_pass_says_when(connect: MakeClient) -> None:
    """``Retry-After`` is in whole seconds, rounded up; ``retryAfterMs`` is exact."""
    client = await connect()
    response = await client.get("/full")
    problem = await _problem(response)
    assert response.status == 503
    assert response.headers["Retry-After"] == "2"
    assert problem["retryAfterMs"] == 1200
    assert "errors" not in problem


async def test_a_bug_leaks_nothing_and_is_logged(connect: MakeClient) -> None:
    """An unexpected exception is a 500; the log has the exception."""
    client = await connect()
    with capture_logs() as logs:
        response = await client.get("/bug")
        problem = await _problem(response)
    assert response.status == 500
    assert problem["code"] == "internal_error"
    assert "secret" not in await response.text()
    assert [type(line["exc_info"]) for line in logs if line["event"] == "call_failed"] == [RuntimeError]


async def test_a_failed_actor_keeps_its_cause_to_itself(connect: MakeClient) -> None:
    """The text of ``ActorFailed`` names its cause, for logs; no client sees the actor or the cause."""
    client = await connect()
    with capture_logs() as logs:
        response = await client.get("/actor")
        problem = await _problem(response)
        vendors = await (await client.get("/v1/actor")).json()
    assert problem["code"] == "actor_failed"
    assert problem["title"] == problem["detail"] == vendors["error"]["message"] == "Internal error"
    assert {str(line["exc_info"]) for line in logs if line["event"] == "call_failed"} == {
        "usage failed: ValueError: a secret row"
    }


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nowhere", 404, "not_found"), ("POST", "/echo/x", 405, "method_not_allowed")],
)
async def test_what_aiohttp_refuses_has_the_same_form(
    connect: MakeClient, method: str, path: str, status: int, code: str
) -> None:
    """An unknown path and a wrong method are problems, too."""
    client = await connect()
    response = await client.request(method, path)
    assert response.status == status
    assert (await _problem(response))["code"] == code
    if status == 405:
        assert set(response.headers["Allow"].split(",")) == {"GET", "HEAD"}


async def test_a_large_body_is_refused(connect: MakeClient) -> None:
    """One byte over the limit is a 413."""
    client = await connect()
    assert (await client.post("/body", data=b"x" * 1024)).status == 200
    response = await client.post("/body", data=b"x" * 1025)
    assert response.status == 413
    assert (await _problem(response))["code"] == "body_too_large"


async def test_compatible_addresses_use_the_vendors_envelope(connect: MakeClient) -> None:
    """Under ``/v1/`` the body is OpenAI's; after our retries the SDK is told not to retry."""
    client = await connect()
    response = await client.post("/v1/chat/completions", json={})
    assert response.status == 504
    assert response.headers["x-should-retry"] == "false"
    assert response.headers["x-request-id"]
    assert (await response.json())["error"]["code"] == "provider_timeout"
    full = await client.get("/v1/full")
    assert "x-should-retry" not in full.headers
    assert full.headers["Retry-After"] == "2"


async def test_a_stream_that_breaks_is_cut_and_not_ended(connect: MakeClient) -> None:
    """A failure after the headers aborts the connection, so that the response is not taken for complete."""
    client = await connect()
    with capture_logs() as logs:
        response = await client.get("/stream")
        assert response.headers["x-request-id"]
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    assert any(line["event"] == "call_failed" for line in logs)


async def test_keys_are_asked_for_everywhere_but_at_the_open_addresses(connect: MakeClient) -> None:
    """A call without a known key is a 401; health is open."""
    client = await connect("one")
    for headers in ({}, {"Authorization": "Bearer two"}):
        response = await client.get("/echo/x", headers=headers)
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert (await _problem(response))["code"] == "unauthenticated"
    assert (await client.get("/nowhere")).status == 401
    assert (await client.get("/api/health")).status == 200
    response = await client.get("/echo/x", headers={"x-api-key": "one"})
    assert (await response.json())["tenant"] == tenant_of("one")


async def test_a_socket_may_bring_its_key_later(connect: MakeClient) -> None:
    """A socket without a key reaches its handler as unauthenticated; a wrong key is refused at once."""
    client = await connect("one")
    assert await (await client.get("/ws")).json() == {"authenticated": False, "tenant": ""}
    good = await client.get("/ws", headers={"x-api-key": "one"})
    assert await good.json() == {"authenticated": True, "tenant": tenant_of("one")}
    assert (await client.get("/ws", headers={"x-api-key": "two"})).status == 401


async def test_a_service_that_stops_takes_no_new_work(connect: MakeClient, lifecycle: Lifecycle) -> None:
    """While stopping, submissions are refused, reading works, and connections are closed after the response."""
    client = await connect()
    lifecycle.stop()
    response = await client.post("/body", data=b"x")
    assert response.status == 503
    assert (await _problem(response))["code"] == "shutting_down"
    look = await client.get("/echo/x")
    assert look.status == 200
    assert look.headers["Connection"] == "close"


async def test_each_call_is_one_line(connect: MakeClient) -> None:
    """The access log has method, path, status and duration; an error has its code; 5xx are warnings, probes DEBUG."""
    client = await connect()
    with capture_logs() as logs:
        await client.get("/echo/x?token=1")
        await client.get("/full")
        await client.get("/api/health")
    lines = [line for line in logs if line["event"] == "http"]
    assert [line["log_level"] for line in lines] == ["info", "warning", "debug"]
    assert dict(lines[0]) | {"ms": 0, "request_id": ""} == {
        "event": "http",
        "log_level": "info",
        "method": "GET",
        "path": "/echo/x",
        "status": 200,
        "ms": 0,
        "request_id": "",
    }
    assert lines[1]["code"] == "overloaded"


async def test_running_calls_are_counted(connect: MakeClient, lifecycle: Lifecycle) -> None:
    """A call is counted until its response, successful or not; sockets are not counted."""
    client = await connect()
    for path in ("/echo/x", "/bug", "/nowhere", "/stream", "/ws"):
        response = await client.get(path)
        response.close()
    await asyncio.sleep(0)
    assert lifecycle.running == 0
