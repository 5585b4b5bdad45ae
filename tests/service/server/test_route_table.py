"""The route table."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from yarl import URL

from service.server.connections import Runner


async def _where(request: web.Request) -> web.Response:
    """Return what a handler can know of its route."""
    route = request.match_info.route
    assert route.resource is not None
    return web.json_response(
        {
            "to": route.resource.canonical,
            "named": dict(request.match_info),
            "by": request.app[NAME],
            "seen": request[SEEN],
        }
    )


NAME = web.AppKey("name", str)
SEEN = web.RequestKey("seen", str)


def _middleware(name: str) -> Middleware:
    @web.middleware
    async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[SEEN] = request.get(SEEN, "") + name
        return await handler(request)

    return around


@asynccontextmanager
async def _serve() -> AsyncIterator[str]:
    app = web.Application(middlewares=[_middleware("a"), _middleware("b")])
    app[NAME] = "app"
    app.router.add_get("/plain", _where)
    app.router.add_post("/plain", _where)
    app.router.add_route("*", "/any", _where)
    app.router.add_get("/plain/{id}", _where)
    runner = Runner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("method", "path", "to", "named"),
    [
        ("GET", "/plain", "/plain", {}),
        ("POST", "/plain?a=1", "/plain", {}),
        ("GET", "/pl%61in", "/plain", {}),
        ("PUT", "/any", "/any", {}),
        ("GET", "/plain/7", "/plain/{id}", {"id": "7"}),
    ],
)
async def test_a_handler_sees_the_same_however_it_was_found(
    method: str, path: str, to: str, named: dict[str, str]
) -> None:
    """A handler sees its route and application; the middlewares run in order, each once."""
    async with _serve() as address, aiohttp.ClientSession() as session:
        for _ in range(2):
            async with session.request(method, URL(address + path, encoded=True)) as response:
                assert await response.json() == {"to": to, "named": named, "by": "app", "seen": "ab"}


@pytest.mark.parametrize(
    ("method", "path", "status"), [("PUT", "/plain", 405), ("GET", "/none", 404), ("HEAD", "/plain", 200)]
)
async def test_what_is_not_there_is_the_application_s_to_say(method: str, path: str, status: int) -> None:
    """Unknown paths and wrong methods are aiohttp's errors."""
    async with (
        _serve() as address,
        aiohttp.ClientSession() as session,
        session.request(method, address + path) as response,
    ):
        assert response.status == status


async def test_who_waits_to_be_asked_for_the_body_is_asked() -> None:
    """``Expect: 100-continue`` is answered before the handler runs."""
    async with _serve() as address, aiohttp.ClientSession() as session:
        response = await session.post(address + "/plain", data=b"x", expect100=True)
        assert response.status == 200
