"""The server: bind, serve, and stop in order."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final, cast

import structlog
from aiohttp import web

from protocol.errors import ConfigurationError, TidegateError
from protocol.gateway import GetProviders, ListModels
from service.addresses import AddressTable
from service.capacity import CAPACITY, Capacity
from service.collector import Collector
from service.config.settings import Settings
from service.container import Container, open_container
from service.context import ACCEPTED
from service.descriptors import Descriptors, raise_limit, read_descriptors
from service.lifecycle import Lifecycle, shut_down
from service.server.acceptor import Site
from service.server.allocator import tune_allocator
from service.server.app import build_app
from service.server.connections import Connection, Runner
from service.server.stopping import ServerShutdown
from service.stall import StallSweep

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
ABORT_TIMEOUT: Final = 0.5  # seconds in which a handler has to end once it is cancelled
EXIT_TIMEOUT: Final = 6.0  # seconds from the last step of the shutdown to the end of the process, whatever hangs
BESIDE: Final = 24  # descriptors of an idle service: its files, its loop, its standard streams
READY_POLL: Final = 0.25  # seconds between looks at a provider that loads
ASK_TIMEOUT: Final = 1.0  # seconds
RUNNER_OPTIONS: Final[dict[str, Any]] = {
    "access_log": None,
    "handle_signals": False,
    "handler_cancellation": True,
    "shutdown_timeout": ABORT_TIMEOUT,
}
"""Options of aiohttp. A disconnect cancels the handler, which only follows the log; the request goes on."""

_log = structlog.get_logger("service")


def run(settings: Settings) -> int:
    """Call ``serve`` in a new event loop, uvloop's where it is installed."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(serve(settings))


async def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, then stop in order; a second signal ends what still runs.

    Returns the exit code: 0, or 1 where requests or calls were cut off.

    Raises:
        ConfigurationError: the settings don't allow it, or the address can't be bound.
    """
    before, after = raise_limit()
    _log.info("descriptors", limit=after, before=before, reserved=Descriptors(after).reserved)
    async with open_container(settings) as container:
        settings.check_exposure(keys=container.auth.required)
        lifecycle = container.lifecycle
        with _signals(lifecycle):
            async with listening(container) as (runner, address):
                lifecycle.serve()
                async with _collecting(container, runner):
                    announcing = asyncio.create_task(_announce(container, address))
                    with container.watchdog.watching():
                        await lifecycle.closing.wait()
                    announcing.cancel()
                whole = await _stop(container, runner)
    _log.info("stopped", whole=whole)
    return 0 if whole else 1


@asynccontextmanager
async def listening(container: Container) -> AsyncIterator[tuple[web.AppRunner, str]]:
    """Listen on the configured address; yields the runner and the address as a URL.

    Raises:
        ConfigurationError: the address can't be bound.
    """
    settings, loop = container.settings, asyncio.get_running_loop()
    limits, descriptors = settings.connections(), read_descriptors()
    total = max(1, min(limits.total, descriptors.ceiling - BESIDE))
    table: AddressTable[Connection] = AddressTable(total, min(limits.per_address, total), limits.proxies)
    app = build_app(container)
    app[CAPACITY] = Capacity(table, descriptors)
    runner = Runner(app, keep_alive=limits.keep_alive, **RUNNER_OPTIONS)
    await runner.setup()
    sweep = StallSweep(partial(_connections, runner), loop.call_later, loop.time)
    try:
        _stamp_arrival(runner)
        try:
            await Site(runner, settings.host, settings.port, table=table, descriptors=descriptors).start()
        except OSError as error:
            message = f"HOST={settings.host} PORT={settings.port} can't be bound: {error.strerror or error}"
            raise ConfigurationError(message) from error
        sweep.start()
        yield runner, _url(runner)
    finally:
        sweep.stop()
        await runner.cleanup()


@asynccontextmanager
async def _collecting(container: Container, runner: web.AppRunner) -> AsyncIterator[None]:
    """Keep the garbage collector's passes short."""
    steps = ServerShutdown(container, runner)

    async def running() -> int:
        requests = await steps.count_requests()
        return container.lifecycle.running + (1 if requests is None else requests)

    collector = Collector(running)
    collector.start()
    tune_allocator()
    task = asyncio.create_task(collector.run(), name="collector")
    try:
        yield
    finally:
        task.cancel()
        collector.stop()


def _connections(runner: web.AppRunner) -> list[Connection]:
    server = runner.server
    return [] if server is None else cast("list[Connection]", server.connections)


async def _stop(container: Container, runner: web.AppRunner) -> bool:
    lifecycle, grace = container.lifecycle, container.settings.shutdown_grace_seconds
    steps = ServerShutdown(container, runner)
    _log.info(
        "stopping",
        signal=lifecycle.signal,
        running=lifecycle.running,
        requests=await steps.count_requests(),
        grace_seconds=grace,
    )
    whole = await shut_down(lifecycle, steps, grace=grace)
    exit_after()
    return whole


def exit_after(timeout: float = EXIT_TIMEOUT, leave: Callable[[int], object] = os._exit) -> None:
    """End the process after ``timeout`` seconds, even where a thread hangs, such as one that loads a model."""
    watch = threading.Timer(timeout, leave, args=(1,))
    watch.daemon = True
    watch.start()


def _stamp_arrival(runner: web.AppRunner) -> None:
    """Store on each request when its headers had been read: the wait for the loop after that counts as our time."""
    server = runner.server
    if server is None:
        return
    make = server.request_factory

    def stamped(*args: Any) -> web.BaseRequest:  # noqa: ANN401 - passed on
        request = make(*args)
        request[ACCEPTED] = time.perf_counter()
        return request

    server.request_factory = stamped


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - there is none on Windows
    except ImportError:
        return None
    return uvloop.new_event_loop


@contextmanager
def _signals(lifecycle: Lifecycle) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, lifecycle.stop, number.name)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


async def _announce(container: Container, address: str) -> None:
    """Log the address, the default's provider and the models; and log once more when a model that was loading is ready.

    A model that can't be loaded is logged by its provider: ``model_failed``.
    """
    try:
        models = await container.gateway.ask(ListModels(), timeout=ASK_TIMEOUT)
        name = models[0].provider if models else container.settings.provider
        providers = await _providers(container)
        _log.info(
            "serving",
            address=address,
            provider=name,
            models=[model.name for model in models],
            state=providers.get(name),
        )
        loading = providers.get(name) == "loading"
        while providers.get(name) == "loading":
            await asyncio.sleep(READY_POLL)
            providers = await _providers(container)
        if loading and providers.get(name) == "ready":
            _log.info("model_loaded", provider=name, state="ready")
    except TidegateError as error:
        _log.warning("serving", address=address, provider=container.settings.provider, code=error.code)


async def _providers(container: Container) -> dict[str, str]:
    providers = await container.gateway.ask(GetProviders(), timeout=ASK_TIMEOUT)
    return {provider.name: provider.detail or provider.state for provider in providers}


def _url(runner: web.AppRunner) -> str:
    host, port = runner.addresses[0][:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
