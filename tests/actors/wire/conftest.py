"""Everything on the wire goes by both loops: uvloop's, which the service runs in, and the standard library's."""

import asyncio
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run each test once in each."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
