"""Tracing on or off. Off is the absence of a provider: nothing of the SDK is imported, and nothing is called."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from opentelemetry.trace import Tracer, TracerProvider

from protocol import spans
from service.config.settings import Settings

FLUSH_TIMEOUT: Final = 2.0  # seconds at exit for spans that are still here; the SDK alone may take 30


class Telemetry:
    """The tracer provider of one service, and its end. Without a provider there is no tracing.

    Args:
        provider: makes the tracers; None for no tracing.
        shutdown: exports what is left; may block.
    """

    __slots__ = ("_shutdown", "provider", "tracer")

    def __init__(self, provider: TracerProvider | None = None, shutdown: Callable[[], None] | None = None) -> None:
        self.provider = provider
        self.tracer: Tracer | None = None if provider is None else provider.get_tracer(spans.TRACER)
        self._shutdown = shutdown

    async def close(self, timeout: float = FLUSH_TIMEOUT) -> bool:  # noqa: ASYNC109 - a bound on leaving, not on work
        """Export what is left, for at most ``timeout`` seconds; returns whether it was done in time.

        A collector that does not answer is left to a daemon thread, which the end of the process does not wait for.
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
    """Export spans where ``OTEL_EXPORTER_OTLP_ENDPOINT`` says; unset, there is no tracing at all."""
    if not settings.otel_exporter_otlp_endpoint:
        return Telemetry()
    from service.telemetry.exporting import build_provider  # noqa: PLC0415 - the SDK costs 165 ms and is rarely wanted

    provider = build_provider(settings.otel_exporter_otlp_endpoint, settings.otel_service_name)
    return Telemetry(provider, provider.shutdown)
