"""The service's guarantees, tested over real sockets, in front of a scripted model."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from oteltap import OtelTapHttpProtobufReceiver, OtelTapHttpProtobufReceiverSettings

from actors.testing import Cut, End, Fault, Reply, Say, ScriptedUpstream, Send, Stall, Step, Wait, refuse
from protocol.errors import PROBLEMS
from tests.service.bench import BODY, open_service, parse_events

Start = Callable[..., Awaitable[Any]]
SOON = 20.0  # seconds, the bound of a wait for an event
CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
async def receiver() -> AsyncIterator[OtelTapHttpProtobufReceiver]:
    """A real OTLP receiver."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    async with OtelTapHttpProtobufReceiver(OtelTapHttpProtobufReceiverSettings(http_port=port)) as receiver:
        yield receiver


# ------------------------------------------------------------------------------------------------------------- one end


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        ((Say("Hel"), Cut()), "provider_stream_broken"),
        ((Say("Hel"),), "provider_stream_broken"),
        ((Say("Hel"), Stall()), "provider_timeout"),
        ((Stall(),), "deadline_exceeded"),
        ((Say("Hel"), Send(b"data: {nonsense\n\n")), "provider_bad_response"),
        ((Say("Hel"), Fault(kind="server_error")), "provider_error"),
    ],
)
async def test_whatever_the_upstream_does_there_is_one_end(
    start: Start, upstream: ScriptedUpstream, steps: tuple[Step, ...], code: str
) -> None:
    """Resets, early ends, stalls, garbage and errors of an upstream: one terminal entry, with its code, in time."""
    upstream.script(Reply(steps=steps))
    running = await start(idle_timeout_seconds=0.05 if code == "provider_timeout" else 60.0)
    body = BODY | {"options": {"timeoutMs": 100 if code == "deadline_exceeded" else 30_000}}
    await _ends_once(running.client, body, code)


async def test_a_limit_of_the_provider_is_honoured_and_told(start: Start, upstream: ScriptedUpstream) -> None:
    """A 429 with a longer delay than the request's time ends the request with that delay; it is not retried."""
    upstream.script(refuse(429, retry_after="600"))
    running = await start()
    error = await _ends_once(running.client, BODY, "provider_rate_limited")
    assert error["retryAfterMs"] == 600_000
    assert upstream.calls == 1


async def _ends_once(client: Any, body: object, code: str) -> Any:  # noqa: ANN401 - a client, and JSON
    async with client.post("/api/requests", json=body) as response:
        assert response.status == 202
        place = response.headers["Location"]
    async with asyncio.timeout(SOON), client.get(f"{place}/events") as stream:
        events = parse_events(await stream.text())
    assert [event.event for event in events].count("error") == 1
    last = events[-1].data
    assert (last["terminal"], last["error"]["code"]) == (True, code)
    async with client.get(place) as response:
        state = await response.json()
    assert (state["assistantStatus"], state["error"]["code"]) == ("failed", code)
    return last["error"]


# ----------------------------------------------------------------------------------------------------------- bad input

BAD: list[tuple[dict[str, Any] | str, str]] = [
    ("{", "malformed_json"),
    ("[1]", "invalid_request"),
    ({"type": "submit", **BODY, "stream": True}, "invalid_request"),
    ({"type": "submit", **BODY, "model": "unknown"}, "model_not_found"),
    ({"type": "submit", "messages": []}, "invalid_request"),
    ({"type": "submit", **BODY, "schema": {"type": "objekt"}}, "invalid_schema"),
    ({"type": "subscribe", "requestId": "req_0"}, "request_not_found"),
    ({"type": "cancel", "requestId": "req_0"}, "request_not_found"),
    (
        {"type": "subscribe", "requestId": "{id}", "after": {"epoch": "foreign1", "offset": 0}, "mode": "replay"},
        "unrecoverable_position",
    ),
    ({"type": "subscribe", "requestId": "{id}", "after": {"epoch": "{epoch}", "offset": 99}}, "unrecoverable_position"),
    ({"type": "subscribe", "requestId": "{id}", "after": {"epoch": "{epoch}", "offset": -1}}, "invalid_request"),
    ({"type": "authenticate", "token": 7}, "invalid_request"),
    ({"type": "publish", "channel": "room:7", "event": "", "data": {}}, "invalid_request"),
    ({"type": "subscribe", "requestId": "{id}", "channel": "room:7"}, "invalid_request"),
    ({"type": "subscribe", "channel": "room:7", "mode": "snapshot"}, "invalid_request"),
    ({"type": "presence", "channel": ""}, "invalid_request"),
]


@pytest.mark.parametrize(("frame", "code"), BAD)
async def test_bad_input_on_the_socket_is_an_error_with_a_remedy(frame: dict[str, Any] | str, code: str) -> None:
    """As in ``test_requests`` over HTTP: a code, a remedy, the frame's id; and the socket stays usable."""
    async with open_service() as service:
        accepted = await (await service.post("/api/requests", BODY)).json()
        text = frame if isinstance(frame, str) else json.dumps(frame | {"id": 7})
        text = text.replace("{id}", accepted["requestId"]).replace("{epoch}", accepted["position"]["epoch"])
        async with service.client.ws_connect(f"{service.base}/ws") as ws:
            await ws.send_str(text)
            refusal = await ws.receive_json()
            assert (refusal["type"], refusal["error"]["code"]) == ("error", code)
            assert refusal["error"]["remedy"] == PROBLEMS[code].remedy
            assert "secret" not in json.dumps(refusal)
            assert "terminal" not in refusal
            if isinstance(frame, dict):
                assert refusal["id"] == 7
            await ws.send_json({"type": "ping"})
            assert await ws.receive_json() == {"type": "pong"}


# ----------------------------------------------------------------------------------------------------------- one trace


async def test_the_whole_way_is_one_trace(
    start: Start, upstream: ScriptedUpstream, receiver: OtelTapHttpProtobufReceiver
) -> None:
    """One trace from the caller's span over the HTTP and message spans to ``chat …`` and the upstream.

    A request that joins has a trace of its own; it and the shared run name each other by links.
    """
    more = asyncio.Event()
    upstream.script(Reply(steps=(Say("Hel"), Wait(more), Say("lo"), End())))
    running = await start(otel_exporter_otlp_endpoint=f"http://127.0.0.1:{receiver._settings.http_port}")
    spans: list[Span] = []
    whole = asyncio.create_task(_collect(receiver, spans))
    await asyncio.sleep(0)
    traces = []
    for parent in ({"traceparent": CALLER}, {}):
        async with running.client.post("/api/requests", json=BODY, headers=parent) as response:
            place = response.headers["Location"]
            traces.append(response.headers["x-trace-id"])
    assert response.headers["x-tidegate-source"] == "joined"
    more.set()
    async with running.client.get(f"{place}/events") as stream:
        await stream.read()
    await running.container.telemetry.close()
    async with asyncio.timeout(SOON):
        await whole

    names = {span.span_id: span.name for span in spans}
    first = {span.name: span for span in spans if span.trace_id.hex() == traces[0]}
    parents = {name: names.get(span.parent_span_id) for name, span in first.items()}
    chat = next(span for name, span in first.items() if name.startswith("chat "))
    assert parents == {
        "POST /api/requests": None,
        "process request-router": "POST /api/requests",
        "process cache": "process request-router",
        "process request-state": "process request-router",
        "process llm-gateway": "process request-state",
        chat.name: "process llm-gateway",
    }
    assert f"00-{traces[0]}-{first['POST /api/requests'].parent_span_id.hex()}-01" == CALLER
    tokens = {item.key: item.value.int_value for item in chat.attributes if item.key.startswith("gen_ai.usage.")}
    assert (tokens["gen_ai.usage.input_tokens"], tokens["gen_ai.usage.output_tokens"]) == (7, 3)
    assert upstream.received[0].headers["traceparent"] == f"00-{traces[0]}-{chat.span_id.hex()}-01"

    (run,) = (span for span in spans if span.name == "process request-state")
    joined = next(span for span in spans if span.trace_id.hex() == traces[1] and span.name == "process request-router")
    assert joined.span_id in {link.span_id for link in run.links}
    assert run.span_id in {link.span_id for link in joined.links}


async def _collect(receiver: OtelTapHttpProtobufReceiver, spans: list[Span]) -> None:
    """Collect spans until the stream's own, which ends last."""
    async for span in receiver.stream_traces():
        spans.append(span)
        if span.name == "GET /api/requests/{id}/events":
            return
