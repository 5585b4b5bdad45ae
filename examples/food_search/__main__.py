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
from service.lifecycle import wind_down
from service.logging import open_logging
from service.websocket import upgrade


async def serve(settings: Settings, food: FoodSettings) -> None:
    """Serve until SIGTERM or SIGINT, then stop in order."""
    settings.check_exposure()
    async with open_container(settings) as container:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, container.lifecycle.stop)
        async with serving(container, food) as (runner, address):
            print(address, flush=True)
            await container.lifecycle.closing.wait()
            await stop(container, runner)


async def stop(container: Container, runner: web.AppRunner) -> None:
    """Let nobody new in, send the sockets away, and give the calls under way their time."""

    async def refuse() -> None:
        for site in list(runner.sites):
            await site.stop()

    async def farewell() -> None:
        await upgrade.farewell(runner.app)

    grace = container.settings.shutdown_grace_seconds
    await wind_down(container.lifecycle, refuse=refuse, farewell=farewell, grace=grace)


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
