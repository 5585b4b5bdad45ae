"""CORS: what pages of other origins may read and send, on every surface."""

from collections.abc import AsyncIterator
from typing import Final

import pytest

from protocol.errors import PROBLEMS
from service.middleware import cors
from service.security_headers import RESPONSE
from tests.service.bench import BODY, CHAT, Service, open_service, read_events

KEY: Final = "a-key-of-the-tests"
APP: Final = "https://app.example"
OTHER: Final = "https://other.example"
ALLOW: Final = "Access-Control-Allow-Origin"
AUTHORIZED: Final = {"authorization": f"Bearer {KEY}"}

OPENAI_SDK: Final = (
    "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-package-version,"
    "x-stainless-retry-count,x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout"
)
ANTHROPIC_SDK: Final = (
    "anthropic-dangerous-direct-browser-access,anthropic-version,anthropic-beta,content-type,x-api-key,"
    "x-stainless-helper-method,x-stainless-os"
)
OURS: Final = (
    "idempotency-key,last-event-id,x-request-id,x-trace-id,traceparent,x-tidegate-dedupe,x-tidegate-on-abandon"
)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service in production with a key, which one other origin may call."""
    async with open_service(api_keys=(KEY,), environment="production", cors_allowed_origins=(APP,)) as running:
        yield running


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/messages", "/api/requests", "/api/requests/r/events", "/none"]
)
@pytest.mark.parametrize("asked", [OPENAI_SDK, ANTHROPIC_SDK, OURS, ""])
async def test_a_preflight_is_answered_without_a_key(service: Service, path: str, asked: str) -> None:
    """204 with the methods, the headers that were asked for, and how long that holds."""
    headers = {"Origin": APP, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": asked}
    async with service.client.options(service.base + path, headers=headers) as response:
        assert response.status == 204
        assert response.headers[ALLOW] == APP
        assert response.headers["Access-Control-Allow-Credentials"] == "true"
        assert response.headers["Vary"] == "Origin"
        assert int(response.headers["Access-Control-Max-Age"]) > 0
        allowed = set(response.headers["Access-Control-Allow-Headers"].split(", "))
        assert set(filter(None, asked.split(","))) <= allowed
        assert response.headers["x-request-id"]


async def test_a_preflight_of_another_origin_is_refused(service: Service) -> None:
    """403 with the reason, and no header that would allow it; headers that nobody knows are not allowed."""
    asking = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-own,x-tidegate-\u00e4,x-stainless-a b",
    }
    async with service.client.options(f"{service.base}/api/requests", headers={"Origin": OTHER} | asking) as response:
        assert response.status == 403
        assert (await response.json())["code"] == "origin_not_allowed"
        assert ALLOW not in response.headers
    async with service.client.options(f"{service.base}/api/requests", headers={"Origin": APP} | asking) as response:
        assert response.headers["Access-Control-Allow-Headers"] == ", ".join(cors.REQUEST_HEADERS)
    async with service.client.options(f"{service.base}/api/requests", headers={"Origin": APP}) as response:
        assert response.status == 401  # no preflight


async def test_every_method_of_a_route_may_be_asked_for(service: Service) -> None:
    """The methods of the preflight are those of the application."""
    methods = {route.method for route in service.app.router.routes()}
    assert methods <= set(cors.METHODS.split(", ")) | {"OPTIONS"}


async def test_every_surface_can_be_read(service: Service) -> None:
    """Answers, errors of every form, streams and files have the headers for the page of a listed origin."""
    submitted = await service.post("/api/requests", BODY, origin=APP, **AUTHORIZED)
    call = await service.call()
    await call.say("Hello")
    await call.end()
    address = submitted.headers["Location"]
    responses = [
        submitted,
        await service.get(address, origin=APP, **AUTHORIZED),
        await service.get(f"{address}/events", origin=APP, **AUTHORIZED),
        await service.get("/v1/models", origin=APP, **AUTHORIZED),
        await service.get("/v1/models", origin=APP),
        await service.post("/v1/messages", {}, origin=APP, **AUTHORIZED),
        await service.post("/v1/chat/completions", CHAT | {"model": "unknown"}, origin=APP, **AUTHORIZED),
        await service.get("/nowhere", origin=APP, **AUTHORIZED),
        await service.get("/api/requests", origin=APP, **AUTHORIZED),
        await service.get("/", origin=APP),
        await service.get("/playground.js", origin=APP),
        await service.get("/client.js", origin=APP),
        await service.get("/docs", origin=APP),
        await service.get("/openapi.json", origin=APP),
        await service.get("/errors/forbidden", origin=APP),
        await service.get("/api/health/live", origin=APP),
        await service.get("/ws", origin=APP),
    ]
    assert {response.status for response in responses} >= {200, 202, 400, 401, 404, 405, 426}
    for response in responses:
        assert response.headers.getall(ALLOW) == [APP], response.url
        assert response.headers.getall("Vary") == ["Origin"]
        exposed = response.headers["Access-Control-Expose-Headers"].split(", ")
        assert {"x-request-id", "retry-after", "location", "x-tidegate-source", "x-ratelimit-limit-tokens"} <= set(
            exposed
        )


async def test_a_stream_can_be_read(service: Service) -> None:
    """The head of a stream that goes on has the headers, too."""
    request_id = (await (await service.post("/api/requests", BODY, **AUTHORIZED)).json())["requestId"]
    following = await service.follow(request_id, origin=APP, **AUTHORIZED)
    assert following.headers[ALLOW] == APP
    call = await service.call()
    await call.end()
    assert (await read_events(following))[-1].event == "complete"


async def test_another_origin_reads_nothing_and_programs_pay_nothing(service: Service) -> None:
    """Without a listed origin there is no header but `Vary`; without an `Origin` not even that."""
    for origin in (OTHER, "null"):
        response = await service.get("/v1/models", origin=origin, **AUTHORIZED)
        assert (response.status, response.headers["Vary"]) == (200, "Origin")
        assert not [name for name in response.headers if name.lower().startswith("access-control")]
    response = await service.get("/v1/models", **AUTHORIZED)
    assert "Vary" not in response.headers
    assert (await service.get("/client.js", origin=OTHER)).headers[ALLOW] == "*"
    assert (await service.get("/")).headers["Vary"] == "Origin"


async def test_any_origin() -> None:
    """`*` is sent as such, without credentials."""
    async with open_service(cors_allowed_origins=("*",)) as service:
        for origin in (APP, "null"):
            response = await service.get("/v1/models", origin=origin)
            assert response.status == 200
            assert response.headers[ALLOW] == "*"
            assert "Access-Control-Allow-Credentials" not in response.headers


async def test_what_is_exposed_is_what_is_sent(service: Service) -> None:
    """Each header of ours on an inference answer is one that a page may read."""
    response = await service.post("/api/requests", BODY, origin=APP, **AUTHORIZED)
    exposed = set(response.headers["Access-Control-Expose-Headers"].split(", "))
    ours = {name.lower() for name in response.headers.keys() - RESPONSE.keys() if name.lower().startswith("x-")}
    assert ours <= exposed
    assert PROBLEMS["origin_not_allowed"].status == 403
