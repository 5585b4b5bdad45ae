"""The child process that serves the local model."""

import asyncio
import logging
import secrets
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Final

import msgspec

from actors.exhausted import exhausted, is_exhausted
from protocol.errors import ProviderError
from protocol.gateway import ProviderState

SLOTS: Final = 2  # concurrent answers
CONTEXT: Final = 8192  # tokens, shared by the slots
EMBEDDING_CONTEXT: Final = 1024  # tokens of one text, computed in one batch: 2048 took 290 MiB more
LOAD_TIMEOUT: Final = 120.0  # seconds
EXIT_TIMEOUT: Final = 2.0  # seconds
CRASH_TIMEOUT: Final = 2.0  # seconds in which a process that has closed its output has to end
CODE: Final = "local_model_failed"

INSTALL: Final = "`make install`, or `pip install 'tidegate[local]'`, then start the service again"
NO_ENGINE: Final = f"The local model's engine can't be imported: {INSTALL}."
NO_OPENMP: Final = (
    "The local model's engine lacks a library of the system: `apt-get install libgomp1` (Debian, Ubuntu); if the "
    f"engine is missing too: {INSTALL}."
)
CRASHED: Final = f"The local model's engine has crashed, as its wheel may not fit this processor: {INSTALL}."
UNUSABLE: Final = "The local model can't be loaded: check that LOCAL_MODEL_PATH names a GGUF file."
SLOW: Final = "The local model did not load in time: name a smaller one in LOCAL_MODEL_PATH."
ENDED: Final = "The local model's process has ended; the next request starts it again."

_log = logging.getLogger("tidegate.local")


class Address(msgspec.Struct, frozen=True):
    """The server's URL, its bearer key, and whether it is ``guided`` (see ``server``)."""

    url: str
    key: str
    guided: bool


class _Answer(msgspec.Struct, frozen=True):
    address: str = ""
    guided: bool = False
    error: str = ""
    reason: str = ""


class LocalProcess:
    r"""Runs ``server`` for one model file. Loading begins at the first ``start`` or ``address``.

    ::

        idle --start--> loading --> ready --the process ends--> ended --start--> loading
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
        """Return the state and its detail."""
        if self._failure:
            return "failed", self._failure
        if self._loading is None:
            return "idle", ""
        if not self._loading.done():
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
            Overloaded: this machine has no resources left for the process; the next call tries again.
            ProviderError: ``local_model_failed``: the model can't be loaded, and is not tried again;
                ``provider_unavailable``: the process is being stopped.
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
                    raise self._failed(UNUSABLE, "the process has no pipes")
                process.stdin.write(msgspec.json.encode(settings) + b"\n")
                await process.stdin.drain()
                line = await process.stdout.readline()
        except TimeoutError as error:
            await self._end()
            raise self._failed(SLOW, f"it took more than {LOAD_TIMEOUT:.0f} s") from error
        except ConnectionError:
            line = b""
        except (OSError, RuntimeError) as error:
            if is_exhausted(error):
                raise exhausted(error) from error
            raise self._failed(UNUSABLE, str(error)) from error
        try:
            answer = msgspec.json.decode(line, type=_Answer)
        except msgspec.DecodeError as error:
            raise self._failed(CRASHED, await _ending(process)) from error
        if not answer.address:
            raise self._failed(_remedy(answer), answer.reason)
        return Address(answer.address, key, answer.guided)

    def _failed(self, detail: str, reason: str) -> ProviderError:
        """Keep the failure, log it, and return it as an error. ``reason`` is for the operator only."""
        self._failure = detail
        report_failure(self._name, reason, detail)
        return ProviderError(detail, code=CODE)

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


def report_failure(model: str, reason: str, remedy: str) -> None:
    """Log that a model can't be loaded, why, and what mends it."""
    _log.warning("model_failed", extra={"fields": {"model": model, "reason": reason, "remedy": remedy, "code": CODE}})


def _remedy(answer: _Answer) -> str:
    if answer.error != "engine":
        return UNUSABLE
    return NO_OPENMP if "libgomp" in answer.reason else NO_ENGINE


async def _ending(process: Process) -> str:
    """Return how a process ended that has said nothing."""
    try:
        async with asyncio.timeout(CRASH_TIMEOUT):
            code = await process.wait()
    except TimeoutError:
        return "the process closed its output"
    return f"the process ended by signal {-code}" if code < 0 else f"the process ended with code {code}"


def _mark_as_seen(task: asyncio.Task[Address]) -> None:
    """Read the task's failure, so that asyncio does not log it: ``status`` has it."""
    if not task.cancelled():
        task.exception()
