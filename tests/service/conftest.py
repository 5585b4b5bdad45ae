"""The whole service on a free loopback port, in front of a scripted model."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import structlog

from actors.testing import ScriptedUpstream
from service.config.settings import Settings, load_settings
from service.container import Container, open_container
from service.server.server import listening


@pytest.fixture(autouse=True)
def _plain_logs() -> Iterator[None]:
    """Print log lines plainly: rendering a traceback with its locals takes a second."""
    structlog.configure(processors=[structlog.processors.add_log_level, structlog.processors.KeyValueRenderer()])
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the vendors' clients from loading the machine's certificates, which takes each 40 ms."""
    monkeypatch.setenv("SSL_CERT_DIR", str(Path(__file__).parent))


@dataclass(frozen=True)
class Running:
    """A service that serves, and a client of it."""

    container: Container
    address: str
    client: aiohttp.ClientSession


Start = Callable[..., Awaitable[Running]]


@pytest.fixture
def settings(upstream: ScriptedUpstream) -> Settings:
    """Settings with the scripted model as the only one, and a free port."""
    return load_settings(None, port=0, openai_api_key="upstream-key", openai_base_url=upstream.openai_url)


@pytest.fixture
async def start(settings: Settings) -> AsyncIterator[Start]:
    """Start services; each keyword is a setting."""
    async with AsyncExitStack() as stack:

        async def start(**overrides: object) -> Running:
            container = await stack.enter_async_context(open_container(settings.model_copy(update=overrides)))
            _, address = await stack.enter_async_context(listening(container))
            container.lifecycle.serve()
            client = await stack.enter_async_context(aiohttp.ClientSession(address))
            return Running(container, address, client)

        yield start
