"""No end of a request, a call or a socket leaves a reference cycle: what has ended is freed at once."""

import asyncio
import gc
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from types import FrameType, FunctionType, MethodType
from typing import Any, Final

import aiohttp
import pytest
import structlog

from actors.testing import Cut, Data, End, Fault, Reply, Reset, Say, ScriptedUpstream, Stall, refuse, say
from tests.service.conftest import Running, Start

ROUNDS: Final = 3
CHAT: Final[dict[str, Any]] = {"model": "gpt-5", "messages": [{"role": "user", "content": "hi"}]}
STREAM: Final = CHAT | {"stream": True}
SCHEMA: Final = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
OURS: Final = ("actors", "protocol", "service")
SETTLE: Final = 200  # turns of the loop for what ends with a call

End_ = Callable[[Running], Awaitable[None]]


@pytest.fixture(autouse=True)
def _no_logs() -> Iterator[None]:
    """Log nothing: pytest holds every record, with the objects of its traceback."""
    logging.disable(logging.CRITICAL)
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()
    logging.disable(logging.NOTSET)


def post(path: str, body: object, **headers: str) -> End_:
    """Return an end: the whole answer to a call is read."""

    async def end(running: Running) -> None:
        async with running.client.post(path, json=body, headers=headers) as response:
            with suppress(aiohttp.ClientError):
                await response.read()

    return end


def left(path: str, body: object) -> End_:
    """Return an end: the client leaves in mid-stream."""

    async def end(running: Running) -> None:
        async with running.client.post(path, json=body) as response:
            await response.content.readany()
            response.close()

    return end


async def left_waiting(running: Running) -> None:
    """The client leaves before there is an answer."""
    waiting = asyncio.ensure_future(running.client.post("/v1/chat/completions", json=CHAT))
    for _ in range(2 * SETTLE):
        await asyncio.sleep(0)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting


def native(*, then: str, after: str = "") -> End_:
    """Return an end: a native request is followed to its end, cancelled or deleted."""

    async def end(running: Running) -> None:
        async with running.client.post("/api/requests", json={"messages": CHAT["messages"]}) as response:
            path = response.headers["Location"]
        if then == "follow":
            async with running.client.get(f"{path}/events{after}") as response:
                await response.read()
        elif then == "cancel":
            await (await running.client.post(f"{path}/cancel")).read()
        await (await running.client.delete(path)).read()

    return end


def socket(*frames: dict[str, Any], until: str = "", abort: bool = False) -> End_:
    """Return an end: a socket says ``frames``, reads until one of type ``until``, and closes."""

    async def end(running: Running) -> None:
        async with running.client.ws_connect("/ws") as connection:
            for frame in frames:
                await connection.send_json(frame)
            while until:
                said = await connection.receive_json(timeout=10)
                if said["type"] == until:
                    break
            if abort:
                connection._response.close()

    return end


SUBMIT: Final = {"type": "submit", "id": 1, "messages": CHAT["messages"]}
ENDS: Final[dict[str, tuple[End_, tuple[Reply, ...]]]] = {
    "whole": (post("/v1/chat/completions", CHAT), (say("a", "b"),)),
    "whole, Anthropic": (post("/v1/messages", CHAT | {"max_tokens": 9}), (say("a"),)),
    "whole, responses": (post("/v1/responses", {"model": "gpt-5", "input": "hi"}), (say("a"),)),
    "stream": (post("/v1/chat/completions", STREAM), (say("a", "b"),)),
    "stream, Anthropic": (post("/v1/messages", STREAM | {"max_tokens": 9}), (say("a"),)),
    "stream, responses": (post("/v1/responses", {"model": "gpt-5", "input": "hi", "stream": True}), (say("a"),)),
    "schema": (
        post(
            "/v1/chat/completions",
            CHAT | {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}},
        ),
        (say('{"a":1}'),),
    ),
    "schema mismatch": (
        post(
            "/v1/chat/completions",
            CHAT | {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}},
        ),
        (say("no"),),
    ),
    "native": (native(then="follow"), (say("a"),)),
    "native, snapshot": (native(then="follow", after="?mode=snapshot"), (say("a"),)),
    "native, cancelled": (native(then="cancel"), (Reply(steps=(Say("a"), Stall())),)),
    "native, deleted": (native(then="delete"), (Reply(steps=(Say("a"), Stall())),)),
    "refused 400": (post("/v1/chat/completions", CHAT), (refuse(400),)),
    "refused 401": (post("/v1/chat/completions", CHAT), (refuse(401),)),
    "refused 429": (post("/v1/chat/completions", CHAT), (refuse(429),) * 8),
    "refused 500": (post("/v1/chat/completions", CHAT), (refuse(500),) * 8),
    "refused, stream": (post("/v1/chat/completions", STREAM), (refuse(400),)),
    "in-band error": (post("/v1/chat/completions", CHAT), (Reply(steps=(Fault(),)),) * 8),
    "in-band error after content": (post("/v1/chat/completions", STREAM), (Reply(steps=(Say("a"), Fault())),) * 8),
    "not JSON": (post("/v1/chat/completions", CHAT), (Reply(steps=(Data(b"nonsense"),)),) * 8),
    "cut": (post("/v1/chat/completions", CHAT), (Reply(steps=(Say("a"), Cut())),) * 8),
    "cut, stream": (post("/v1/chat/completions", STREAM), (Reply(steps=(Say("a"), Cut())),) * 8),
    "reset": (post("/v1/chat/completions", CHAT), (Reply(before=(Reset(),)),) * 8),
    "no finish": (post("/v1/chat/completions", CHAT), (Reply(steps=(Say("a"),)),) * 8),
    "empty": (post("/v1/chat/completions", CHAT), (Reply(steps=(End(),)),) * 8),
    "left in mid-stream": (left("/v1/chat/completions", STREAM), (Reply(steps=(Say("a"), Stall())),)),
    "left while waiting": (left_waiting, (Reply(before=(Stall(),)),)),
    "deadline": (
        post("/api/requests", {"messages": CHAT["messages"], "options": {"timeoutMs": 50}}),
        (Reply(before=(Stall(),)),),
    ),
    "embeddings": (post("/v1/embeddings", {"model": "m", "input": ["a"]}), ()),
    "embeddings refused": (post("/v1/embeddings", {"model": "m", "input": ["a"]}), (refuse(400),)),
    "unknown model": (post("/v1/chat/completions", CHAT | {"model": "nowhere/x"}), ()),
    "bad body": (post("/v1/chat/completions", {"messages": 1}), ()),
    "bad schema": (post("/api/requests", {"messages": CHAT["messages"], "schema": {"type": 3}}), ()),
    "unknown path": (post("/nowhere", {}), ()),
    "unknown request": (post("/api/requests/req_0/cancel", {}), ()),
    "cached": (post("/v1/chat/completions", CHAT | {"temperature": 0}), (say("a"),)),
    "replayed": (post("/v1/chat/completions", CHAT, **{"Idempotency-Key": "k"}), (say("a"),)),
    "socket": (socket({"type": "ping"}, until="pong"), ()),
    "socket, aborted": (socket({"type": "ping"}, until="pong", abort=True), ()),
    "socket, bad frame": (socket({"type": "nonsense", "id": 1}, until="error"), ()),
    "socket, submit": (socket(SUBMIT, until="complete"), (say("a"),)),
    "socket, submit refused": (socket(SUBMIT, until="error"), (refuse(400),)),
    "socket, left": (socket(SUBMIT, until="update"), (Reply(steps=(Say("a"), Stall())),)),
    "socket, channel": (
        socket(
            {"type": "subscribe", "id": 1, "channel": "room"},
            {"type": "publish", "id": 2, "channel": "room", "event": "e", "data": {}},
            until="update",
        ),
        (),
    ),
}


@pytest.mark.parametrize("name", list(ENDS))
async def test_end_leaves_no_cycle(start: Start, upstream: ScriptedUpstream, name: str) -> None:
    """After three of a kind the collector finds nothing of ours."""
    end, replies = ENDS[name]
    running = await start()
    for number in range(ROUNDS + 1):
        upstream.script(*replies)
        if number == 1:
            gc.collect()
            gc.disable()
        try:
            await end(running)
            for _ in range(SETTLE):
                await asyncio.sleep(0)
        finally:
            if number == ROUNDS:
                gc.enable()
    assert garbage() == {}


def garbage() -> Counter[str]:
    """Return what is only reachable from itself, of our classes, functions and frames; and free it."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        found = Counter(filter(None, map(_named, gc.garbage)))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.collect()
    return found


def _named(thing: object) -> str:
    """Return the name of an object of ours; empty for any other."""
    if isinstance(thing, MethodType):
        thing = thing.__func__
    if isinstance(thing, FrameType):
        module, name = thing.f_globals.get("__name__", ""), f"frame of {thing.f_code.co_qualname}"
    elif isinstance(thing, FunctionType):
        module, name = thing.__module__, thing.__qualname__
    else:
        module, name = type(thing).__module__, type(thing).__qualname__
    top = str(module).partition(".")[0]
    return f"{module}.{name}" if top in OURS and "testing" not in str(module) else ""
