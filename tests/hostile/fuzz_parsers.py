"""A coverage-guided fuzzer for the service's own parsers. It is a command, and needs atheris, which is no requirement.

::

    pip install atheris
    python -m tests.hostile.fuzz_parsers frames -max_total_time=60     # or events, env, toml, secrets

It ends with the input where a parser raises what it does not declare, or keeps more than its bound.
"""

import asyncio
import importlib
import inspect
import sys
import tempfile
import tomllib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from actors.wire import sse
from actors.wire.sse import EventSplitter
from protocol import secret_text
from protocol.errors import ConfigurationError, ProviderError
from protocol.secret_text import hide_keys
from service.config import env_file, routes_file, toml_tables
from service.config.env_file import EnvFile, read_env_file
from service.config.routes_file import parse
from service.websocket.reader import CLOSE, MAX_MESSAGE_BYTES, FrameReader

STEP: Final = 7  # bytes of a read, so that most things come in pieces
PARSERS: Final = (FrameReader, EventSplitter, EnvFile, env_file, routes_file, secret_text, sse, toml_tables)


class _Flow:
    """A connection that is always read."""

    def pause_reading(self) -> None:
        """Do nothing."""

    def resume_reading(self) -> None:
        """Do nothing."""


def frames(data: bytes) -> None:
    """Read frames of a socket."""
    reader = FrameReader(_Flow(), lambda: 0.0)
    for place in range(0, len(data), STEP):
        reader.feed_data(data[place : place + STEP])
    reader.feed_eof()

    async def read() -> None:
        while (await reader.receive()).opcode != CLOSE:
            pass

    asyncio.run(read())
    if len(reader._buffer) > MAX_MESSAGE_BYTES:
        raise AssertionError("the reader keeps more than a message")


def events(data: bytes) -> None:
    """Split a stream of server-sent events."""
    splitter = EventSplitter()
    try:
        for place in range(0, len(data), STEP):
            splitter.feed(data[place : place + STEP])
        splitter.end()
    except ProviderError:
        pass


def env(data: bytes) -> None:
    """Read a ``.env`` file."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with suppress(ConfigurationError):
            read_env_file(Path(file.name)).faults(())


def toml(data: bytes) -> None:
    """Read a ``tidegate.toml``."""
    try:
        table = tomllib.loads(data.decode("utf-8", "replace"))
    except (tomllib.TOMLDecodeError, RecursionError):
        return
    parse(table)


def secrets(data: bytes) -> None:
    """Hide keys in a text."""
    hide_keys(data.decode("utf-8", "replace"))


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "frames": frames,
    "events": events,
    "env": env,
    "toml": toml,
    "secrets": secrets,
}


def main() -> None:
    """Fuzz the parser that the first argument names; the others are those of libFuzzer."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.hostile.fuzz_parsers {'|'.join(TARGETS)} [-max_total_time=60]")
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        sys.exit("atheris is not installed: pip install atheris")
    target = TARGETS[sys.argv.pop(1)]
    for owner in PARSERS:
        for function in filter(inspect.isfunction, vars(owner).values()):
            atheris.instrument_func(function)
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
