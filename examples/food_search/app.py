"""HTTP handlers of the food search, in the service's application: clients follow the answers on the same ``/ws``."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Final

import msgspec
from aiohttp import web
from opentelemetry import context as otel_context

from actors.llm_gateway.type_schema import json_schema
from actors.pipeline.stage import Caller
from actors.runtime import Ref
from examples.food_search.searches import Searches, SearchState
from examples.food_search.stages import GATE, FoodSettings, food_pipeline
from protocol.errors import ConfigurationError, InvalidRequest, TidegateError
from protocol.gateway import Complete, GetProviders
from protocol.llm import ChatMessage, ChatRequest
from service.container import Container
from service.context import call_of, container_of
from service.http.bodies import decode, read_json
from service.server.app import build_app
from service.server.connections import Runner
from service.server.server import RUNNER_OPTIONS

SEARCHES: Final = web.AppKey("searches", Searches)
ACCEPTED: Final = 202
LOADING: Final = 60.0  # seconds for which searches wait for a model
LOOK: Final = 0.1  # seconds between two looks at it
WARM_UP: Final = ChatRequest(
    model="default",
    messages=(ChatMessage(role="system", content=GATE.prompt.text), ChatMessage(role="user", content="pizza")),
    schema=json_schema(GATE.result),
    max_tokens=64,
)


class SearchBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /search``."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


_decoder: Final = msgspec.json.Decoder(SearchBody)
_encode: Final = msgspec.json.Encoder().encode


def food_app(container: Container, settings: FoodSettings) -> web.Application:
    """Return the service's application with the search in it; searches wait for a model that still loads."""
    app = build_app(container)
    pipeline = food_pipeline(settings, container.router, container.system)
    loaded = asyncio.Event()
    _ = container.system.background(_set_when_loaded(container.gateway, loaded), name="food-search-model")
    app[SEARCHES] = Searches(container.system, pipeline, settings, ready=loaded)
    app.router.add_post("/search", begin)
    app.router.add_get("/search/{id}", show)
    return app


async def _set_when_loaded(gateway: Ref[GetProviders | Complete], loaded: asyncio.Event) -> None:
    """Set ``loaded`` when no model loads any more, at the latest after ``LOADING``: the gate does not wait for that.

    A model that was loading is asked once before, because its first typed answer takes longer than all others.
    """
    try:
        async with asyncio.timeout(LOADING):
            if await _loads(gateway):
                while await _loads(gateway):  # noqa: ASYNC110 - the gateway sets no event
                    await asyncio.sleep(LOOK)
                await gateway.ask(Complete(request=WARM_UP), timeout=LOADING)
    except (TimeoutError, TidegateError):
        return
    finally:
        loaded.set()


async def _loads(gateway: Ref[GetProviders]) -> bool:
    return any(status.state == "loading" for status in await gateway.ask(GetProviders(), timeout=LOADING))


@asynccontextmanager
async def serving(container: Container, settings: FoodSettings) -> AsyncIterator[tuple[web.AppRunner, str]]:
    """Listen on the address in the container's settings; yields the runner and the address.

    Raises:
        ConfigurationError: the address can't be bound.
    """
    host, port = container.settings.host, container.settings.port
    runner = Runner(food_app(container, settings), **RUNNER_OPTIONS)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise ConfigurationError(f"HOST={host} PORT={port} can't be bound: {error.strerror}") from error
        container.lifecycle.serve()
        yield runner, f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def begin(request: web.Request) -> web.Response:
    """Start a search: 202 with its id. It continues whether or not the client stays."""
    limit = container_of(request).settings.max_body_bytes
    body = await read_json(request, limit, partial(decode, _decoder))
    call = call_of(request)
    caller = Caller(tenant=call.tenant, trace_id=call.trace_id, context=otel_context.get_current())
    search = request.app[SEARCHES].begin(body.text, caller)
    call.name(search.request_id)
    return _json(search.state(), status=ACCEPTED, Location=f"/search/{search.request_id}")


async def show(request: web.Request) -> web.Response:
    """Return the state of a search; with ``?wait=answer`` or ``?wait=end`` wait for the answer's request or the end.

    Every stage has a timeout, so neither waits for ever.
    """
    search = request.app[SEARCHES].find(request.match_info["id"], call_of(request).tenant)
    wait = request.query.get("wait", "")
    if wait not in ("", "answer", "end"):
        raise InvalidRequest(f"`wait` is `answer` or `end`, got {wait[:40]!r}")
    if wait:
        await (search.answering if wait == "answer" else search.ended).wait()
    return _json(search.state())


def _json(state: SearchState, *, status: int = 200, **headers: str) -> web.Response:
    headers["Cache-Control"] = "no-store"
    return web.Response(body=_encode(state), status=status, headers=headers, content_type="application/json")
