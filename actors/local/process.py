"""The child process that serves the local model."""

import asyncio
import secrets
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Final

import msgspec

from protocol.errors import ProviderError
from protocol.gateway import ProviderState

SLOTS: Final = 2  # concurrent answers
CONTEXT: Final = 8192  # tokens, shared by the slots
EMBEDDING_CONTEXT: Final = 1024  # tokens of one text, computed in one batch: 2048 took 290 MiB more
LOAD_TIMEOUT: Final = 120.0  # seconds
EXIT_TIMEOUT: Final = 2.0  # seconds

MISSING: Final = "The local model's engine is not installed: pip install 'tidegate[local]'."
UNUSABLE: Final = "The local model can't be loaded: check that LOCAL_MODEL_PATH names a GGUF file."
SLOW: Final = "The local model did not load in time."
ENDED: Final = "The local model's process has ended; the next request starts it again."


class Address(msgspec.Struct, frozen=True):
    """The server's URL, its bearer key, and whether it is ``guided`` (see ``server``)."""

    url: str
    key: str
    guided: bool


class _Answer(msgspec.Struct, frozen=True):
    address: str = ""
    guided: bool = False
    error: str = ""


class LocalProcess:
    r"""Runs ``server`` for one model file. Loading begins at the first ``start`` or ``address``.

    ::

        not started --start--> loading --> ready --the process ends--> ended --start--> loading
                                  \--> failed

    Args:
        path: the GGUF file.
        name: the model's name.
        embeddings: whether it serves embeddings, one text at a time, instead of chat.
    """

    def __init__(self, path: Path, name: str, *, embeddings: bool = False) -> None:
        self._path = path
        self._name = name
        self._embeddings = embeddings
        self._loading: asyncio.Task[Address] | None = None
        self._process: Process | None = None
        self._failure = ""

    def status(self) -> tuple[ProviderState, str]:
        """Return the state and its detail; a process that was not started counts as ``loading``."""
        if self._failure:
            return "failed", self._failure
        if self._loading is None or not self._loading.done():
            return "loading", ""
        return ("failed", ENDED) if self._ended else ("ready", "")

    def start(self) -> None:
        """Start loading in the background, unless that has begun. A process that has ended is started again."""
        if self._loading is None or (self._ended and not self._failure):
            self._loading = asyncio.get_running_loop().create_task(self._load(), name="local-model")
            self._loading.add_done_callback(_mark_as_seen)

    async def address(self) -> Address:
        """Wait until the model is loaded, and return the server's address.

        Raises:
            ProviderError: ``provider_unavailable``: the model can't be loaded.
        """
        self.start()
        loading = self._loading
        if loading is None or loading.cancelled():
            raise ProviderError(code="provider_unavailable")
        return await asyncio.shield(loading)

    async def close(self) -> None:
        """Stop the process, and wait until it has ended. Idempotent."""
        loading, self._loading = self._loading, None
        if loading is not None and not loading.done():
            loading.cancel()
            await asyncio.wait((loading,))
        await self._end()

    @property
    def _ended(self) -> bool:
        loaded = self._loading is not None and self._loading.done()
        return loaded and (self._process is None or self._process.returncode is not None)

    async def _load(self) -> Address:
        await self._end()
        key = secrets.token_urlsafe(16)
        settings = {
            "path": str(self._path),
            "name": self._name,
            "key": key,
            "slots": 1 if self._embeddings else SLOTS,
            "context": EMBEDDING_CONTEXT if self._embeddings else CONTEXT,
            "embeddings": self._embeddings,
        }
        program = str(Path(__file__).with_name("server.py"))
        try:
            async with asyncio.timeout(LOAD_TIMEOUT):
                process = self._process = await asyncio.create_subprocess_exec(
                    sys.executable, "-P", program, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True
                )
                if process.stdin is None or process.stdout is None:
                    raise self._failed(UNUSABLE)
                process.stdin.write(msgspec.json.encode(settings) + b"\n")
                await process.stdin.drain()
                line = await process.stdout.readline()
        except TimeoutError as error:
            raise self._failed(SLOW) from error
        except OSError as error:
            raise self._failed(UNUSABLE) from error
        try:
            answer = msgspec.json.decode(line, type=_Answer)
        except msgspec.DecodeError as error:
            raise self._failed(UNUSABLE) from error
        if not answer.address:
            raise self._failed(MISSING if answer.error == "missing" else UNUSABLE)
        return Address(answer.address, key, answer.guided)

    def _failed(self, detail: str) -> ProviderError:
        self._failure = detail
        return ProviderError(detail, code="provider_unavailable")

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(EXIT_TIMEOUT):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def _mark_as_seen(task: asyncio.Task[Address]) -> None:
    """Read the task's failure, so that asyncio does not log it: ``status`` has it."""
    if not task.cancelled():
        task.exception()
