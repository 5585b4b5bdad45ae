"""Spans, with a real OTLP receiver and without one."""

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from oteltap import OtelTapHttpProtobufReceiver, OtelTapHttpProtobufReceiverSettings
from structlog.testing import capture_logs

from actors.testing import ScriptedUpstream, refuse, say
from service.config.settings import load_settings
from service.telemetry.exporting import SteadyExporter
from service.telemetry.setup import Telemetry, open_telemetry

BODY = {"model": "default", "messages": [{"role": "user", "content": "hi"}]}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
SOON = 20.0  # seconds, the bound of a wait for an event


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture
async def receiver() -> AsyncIterator[OtelTapHttpProtobufReceiver]:
    """A real OTLP receiver."""
    settings = OtelTapHttpProtobufReceiverSettings(http_port=_free_port())
    async with OtelTapHttpProtobufReceiver(settings) as receiver:
        yield receiver


def _endpoint(receiver: OtelTapHttpProtobufReceiver) -> str:
    return f"http://127.0.0.1:{receiver._settings.http_port}"


def _expect(receiver: OtelTapHttpProtobufReceiver, name: str) -> "asyncio.Task[Span]":
    return asyncio.create_task(receiver.await_trace(lambda span: span.name == name, timeout=SOON))


def _attributes(span: Span) -> dict[str, Any]:
    values = ((item.key, item.value) for item in span.attributes)
    return {key: getattr(value, value.WhichOneof("value") or "string_value") for key, value in values}


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Wait for the exporter's threads, whose backoff is random."""
    yield
    for thread in threading.enumerate():
        if thread.name == "telemetry-shutdown":
            thread.join(40)
            assert not thread.is_alive()


async def test_a_request_is_one_trace_from_the_caller_to_the_upstream(
    start: Callable[..., Awaitable[Any]], upstream: ScriptedUpstream, receiver: OtelTapHttpProtobufReceiver
) -> None:
    """The SERVER span is the child of the caller's, the model's span is in the same trace, and so is the upstream."""
    upstream.script(say("Hello"))
    running = await start(otel_exporter_otlp_endpoint=_endpoint(receiver))
    server, chat = (
        _expect(receiver, "POST /v1/chat/completions"),
        asyncio.create_task(receiver.await_trace(lambda span: span.name.startswith("chat "), timeout=SOON)),
    )
    await asyncio.sleep(0)
    response = await running.client.post(
        "/v1/chat/completions", json=BODY, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"}
    )
    assert response.status == 200
    assert response.headers["x-trace-id"] == TRACE
    await running.container.telemetry.close()
    span = await server
    assert span.trace_id.hex() == TRACE
    assert span.parent_span_id.hex() == PARENT
    assert span.kind == Span.SPAN_KIND_SERVER
    attributes = _attributes(span)
    assert attributes["http.request.method"] == "POST"
    assert attributes["http.route"] == "/v1/chat/completions"
    assert attributes["http.response.status_code"] == 200
    assert (await chat).trace_id.hex() == TRACE
    assert upstream.received[0].headers["traceparent"].split("-")[1] == TRACE


async def test_a_callers_trace_id_names_the_trace(
    start: Callable[..., Awaitable[Any]], receiver: OtelTapHttpProtobufReceiver
) -> None:
    """Without a ``traceparent`` the root span takes the trace id that the caller sent as ``x-trace-id``."""
    running = await start(otel_exporter_otlp_endpoint=_endpoint(receiver))
    waiting = _expect(receiver, "GET /v1/models")
    await asyncio.sleep(0)
    await running.client.get("/v1/models", headers={"x-trace-id": TRACE})
    await running.container.telemetry.close()
    span = await waiting
    assert span.trace_id.hex() == TRACE
    assert not span.parent_span_id


async def test_another_name_of_a_trace_is_an_attribute(
    start: Callable[..., Awaitable[Any]], receiver: OtelTapHttpProtobufReceiver
) -> None:
    """An ``x-trace-id`` that is no trace id: the span has an id of its own, also after one on the same connection."""
    running = await start(otel_exporter_otlp_endpoint=_endpoint(receiver))
    await running.client.get("/v1/models", headers={"x-trace-id": TRACE})
    waiting = _expect(receiver, "GET /v1/models/{model}")
    await asyncio.sleep(0)
    response = await running.client.get("/v1/models/gpt-5", headers={"x-trace-id": "order 17"})
    await running.container.telemetry.close()
    span = await waiting
    assert response.headers["x-trace-id"] == "order 17"
    assert span.trace_id.hex() not in {TRACE, "0" * 32}
    assert _attributes(span)["tidegate.trace.name"] == "order 17"


async def test_our_failures_are_errors_and_the_callers_are_not(
    start: Callable[..., Awaitable[Any]], upstream: ScriptedUpstream, receiver: OtelTapHttpProtobufReceiver
) -> None:
    """A 5xx marks the span with its code; a 404 is just a status. Probes have no span at all."""
    upstream.script(refuse(401))
    running = await start(otel_exporter_otlp_endpoint=_endpoint(receiver))
    seen: list[Span] = []

    async def collect() -> None:
        async for span in receiver.stream_traces():
            seen.append(span)
            if span.name == "POST /v1/chat/completions":
                return

    collecting = asyncio.create_task(collect())
    await asyncio.sleep(0)
    await running.client.get("/api/health")
    await running.client.get("/nowhere")
    response = await running.client.post("/v1/chat/completions", json=BODY)
    assert response.status == 502
    await running.container.telemetry.close()
    async with asyncio.timeout(SOON):
        await collecting
    by_name = {span.name: span for span in seen}
    assert by_name["POST /v1/chat/completions"].status.code == 2
    assert _attributes(by_name["POST /v1/chat/completions"])["error.type"] == "provider_credentials"
    assert by_name["GET"].status.code == 0
    assert _attributes(by_name["GET"])["http.response.status_code"] == 404
    assert not any("health" in name for name in by_name)


def test_without_an_endpoint_the_sdk_is_not_even_imported() -> None:
    """With tracing off there is no provider, no tracer and no import."""
    telemetry = open_telemetry(load_settings(None))
    assert telemetry.provider is None
    assert telemetry.tracer is None
    code = (
        "import sys, service.server.server; sys.exit(any(name.startswith('opentelemetry.sdk') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50)  # noqa: S603 - our own interpreter


async def test_a_collector_that_hangs_does_not_hold_up_the_end() -> None:
    """Closing waits for a limited time, then leaves the export to a daemon thread."""
    release = threading.Event()

    def shutdown() -> None:
        release.wait()

    telemetry = Telemetry(shutdown=shutdown)
    assert not await telemetry.close(timeout=0.0)
    release.set()


async def test_a_collector_that_is_not_there_does_not_hold_up_the_end(start: Callable[..., Awaitable[Any]]) -> None:
    """With an unreachable collector, requests are answered, and closing ends within its limit."""
    running = await start(otel_exporter_otlp_endpoint=f"http://127.0.0.1:{_free_port()}")
    assert (await running.client.get("/v1/models")).status == 200
    async with asyncio.timeout(SOON):
        await running.container.telemetry.close()


class _Exporter(SpanExporter):
    def __init__(self) -> None:
        self.result = SpanExportResult.SUCCESS

    def export(self, spans: object) -> SpanExportResult:
        return self.result


def test_only_a_change_is_logged() -> None:
    """An unreachable collector is logged once, and once more when it is reachable."""
    inner = _Exporter()
    with capture_logs() as logs:
        exporter = SteadyExporter(inner, "http://collector")
        for result in (
            SpanExportResult.SUCCESS,
            SpanExportResult.FAILURE,
            SpanExportResult.FAILURE,
            SpanExportResult.SUCCESS,
            SpanExportResult.SUCCESS,
        ):
            inner.result = result
            exporter.export([])
    assert [line["event"] for line in logs] == ["collector_unreachable", "collector_reachable_again"]
