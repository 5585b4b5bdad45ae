"""Export of spans over OTLP/HTTP with the SDK: in batches, from a thread; an outage of the collector is logged once."""

import logging
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from service.telemetry.spans import WANTED_TRACE_ID

TRACES_PATH: Final = "/v1/traces"
BATCH: Final = 128  # spans; encoding holds the interpreter for 79 us a span, so 512 would stall the loop for 40 ms
QUEUE: Final = 4096  # spans that wait; further ones are dropped
DELAY_MS: Final = 1000
EXPORT_TIMEOUT: Final = 5.0  # seconds for one batch, with the exporter's own retries
NOISY_LOGGERS: Final = ("opentelemetry.exporter.otlp", "opentelemetry.sdk._shared_internal")


class CallersTraceIds(RandomIdGenerator):
    """Random ids, except that a root span takes the trace id that the HTTP caller requested."""

    def generate_trace_id(self) -> int:
        """Return the requested trace id if there is one, else a random one."""
        return WANTED_TRACE_ID.get() or super().generate_trace_id()


class SteadyExporter(SpanExporter):
    """Passes spans to ``exporter``, and logs only when the collector becomes unreachable or reachable again."""

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._reachable = True
        self._lost = 0
        self._log = structlog.get_logger("service.telemetry")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export a batch; spans that can't be exported are lost, and counted."""
        result = self._exporter.export(spans)
        reachable = result is SpanExportResult.SUCCESS
        if not reachable:
            self._lost += len(spans)
        if reachable is not self._reachable:
            self._reachable = reachable
            if reachable:
                self._log.info("collector_reachable_again", endpoint=self._endpoint, spans_lost=self._lost)
            else:
                self._log.warning("collector_unreachable", endpoint=self._endpoint)
        return result

    def shutdown(self) -> None:
        """Shut the exporter down; a running batch is given up."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the exporter; no spans wait here."""
        return self._exporter.force_flush(timeout_millis)


def build_provider(endpoint: str, service_name: str) -> TracerProvider:
    """Return a tracer provider that exports to ``endpoint``; it is not made the process's global one."""
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    resource = Resource.create({"service.name": service_name, "service.version": _version()})
    provider = TracerProvider(resource=resource, id_generator=CallersTraceIds(), shutdown_on_exit=False)
    exporter = SteadyExporter(OTLPSpanExporter(endpoint=endpoint + TRACES_PATH, timeout=EXPORT_TIMEOUT), endpoint)
    provider.add_span_processor(
        BatchSpanProcessor(exporter, max_queue_size=QUEUE, schedule_delay_millis=DELAY_MS, max_export_batch_size=BATCH)
    )
    return provider


def _version() -> str:
    try:
        return version("tidegate")
    except PackageNotFoundError:
        return "0"
