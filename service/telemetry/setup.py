"""Turns tracing on or off. Off means no provider: the SDK is neither imported nor called."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from opentelemetry.trace import Tracer, TracerProvider

from protocol import spans
from service.config.settings import Settings

FLUSH_TIMEOUT: Final = 2.0  # seconds at exit for unexported spans; the SDK itself would allow 30


class Telemetry:
    """The tracer provider of one service. Without a provider there is no tracing.

    Args:
        provider: makes the tracers; None for no tracing.
        shutdown: exports the remaining spans; may block.
    """

    __slots__ = ("_shutdown", "provider", "tracer")

    def __init__(self, provider: TracerProvider | None = None, shutdown: Callable[[], None] | None = None) -> None:
        self.provider = provider
        self.tracer: Tracer | None = None if provider is None else provider.get_tracer(spans.TRACER)
        self._shutdown = shutdown

    async def close(self, timeout: float = FLUSH_TIMEOUT) -> bool:  # noqa: ASYNC109 - a bound on leaving, not on work
        """Export the remaining spans, for at most ``timeout`` seconds; returns whether that was in time.

        The export runs in a daemon thread, so the process can exit where a collector does not answer.
        """
        if self._shutdown is None:
            return True
        loop, done, shutdown = asyncio.get_running_loop(), asyncio.Event(), self._shutdown

        def run() -> None:
            shutdown()
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=run, name="telemetry-shutdown", daemon=True).start()
        try:
            async with asyncio.timeout(timeout):
                await done.wait()
        except TimeoutError:
            return False
        return True


def open_telemetry(settings: Settings) -> Telemetry:
    """Return the tracing for ``OTEL_EXPORTER_OTLP_ENDPOINT``; where that is unset, there is none."""
    if not settings.otel_exporter_otlp_endpoint:
        return Telemetry()
    from service.telemetry.exporting import build_provider  # noqa: PLC0415 - the SDK costs 165 ms and is rarely wanted

    provider = build_provider(settings.otel_exporter_otlp_endpoint, settings.otel_service_name)
    return Telemetry(provider, provider.shutdown)
