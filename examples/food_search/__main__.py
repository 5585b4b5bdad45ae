"""Serves the food search: ``python -m examples.food_search``, from the repository's top."""

import asyncio
import os
import signal
import sys

from aiohttp import web

from examples.food_search.app import serving
from examples.food_search.stages import FoodSettings
from protocol.errors import ConfigurationError
from service.config.settings import Settings, load_settings
from service.container import Container, open_container
from service.lifecycle import shut_down
from service.logging import open_logging
from service.server.stopping import ServerShutdown


async def serve(settings: Settings, food: FoodSettings) -> None:
    """Serve until SIGTERM or SIGINT, then stop in order."""
    settings.check_exposure()
    async with open_container(settings) as container:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, container.lifecycle.stop, number.name)
        async with serving(container, food) as (runner, address):
            print(address, flush=True)
            await container.lifecycle.closing.wait()
            await stop(container, runner)


async def stop(container: Container, runner: web.AppRunner) -> None:
    """Let run what runs, end what is left after the grace period, and disconnect the sockets."""
    steps = ServerShutdown(container, runner)
    await shut_down(container.lifecycle, steps, grace=container.settings.shutdown_grace_seconds)


def main() -> None:
    """Read the settings and serve."""
    try:
        settings, food = load_settings(), FoodSettings.of(os.environ)
        with open_logging(settings):
            asyncio.run(serve(settings, food))
    except ConfigurationError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
