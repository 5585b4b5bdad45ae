"""The steps of a server's shutdown."""

from typing import Final

from aiohttp import web

from protocol.errors import TidegateError
from protocol.requests import AwaitRequests, CountRequests, EndRequests
from service.container import Container
from service.websocket import upgrade

ASK_TIMEOUT: Final = 1.0  # seconds in which the router has to count or end its requests


class ServerShutdown:
    """Takes the steps of ``service.lifecycle.ShutdownSteps`` for a running server.

    Args:
        container: the parts of the service.
        runner: listens for it.
    """

    def __init__(self, container: Container, runner: web.AppRunner) -> None:
        self._container = container
        self._runner = runner

    async def count_requests(self) -> int | None:
        """Return the number of running requests; None where the router does not reply."""
        try:
            return await self._container.router.ask(CountRequests(), timeout=ASK_TIMEOUT)
        except TidegateError:
            return None

    async def release_sockets(self) -> None:
        """Disconnect the sockets that follow no request, and each other one after its last request."""
        await upgrade.disconnect_idle(self._runner.app)

    async def wait_for_requests(self) -> None:
        """Wait until no request runs; the caller bounds that."""
        grace = self._container.settings.shutdown_grace_seconds
        await self._container.router.ask(AwaitRequests(), timeout=grace + ASK_TIMEOUT)

    async def end_requests(self) -> int:
        """End the running requests with ``shutting_down``; return their number."""
        return await self._container.router.ask(EndRequests(), timeout=ASK_TIMEOUT)

    async def disconnect_sockets(self) -> None:
        """Disconnect all sockets that are left, after the last frames of their requests."""
        await upgrade.disconnect_all(self._runner.app)

    async def stop_listening(self) -> None:
        """Accept no more connections."""
        for site in list(self._runner.sites):
            await site.stop()
