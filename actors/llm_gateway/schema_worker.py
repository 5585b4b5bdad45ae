"""A process of its own for schemas and answers whose validation may take long.

The library validates while it holds the interpreter, so a thread does not help. The process has bounds on its memory
and on the time of one job; at a bound it is ended, and the next job starts another one.
"""

import asyncio
import logging
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from typing import Final

import msgspec

from protocol.errors import FieldError, InvalidRequest, Overloaded

JOB_TIMEOUT: Final = 2.0  # seconds for one job, the start of the process not included
START_TIMEOUT: Final = 20.0  # seconds
EXIT_TIMEOUT: Final = 2.0  # seconds
MAX_WAITING: Final = 64  # jobs
PREFIX: Final = 4  # bytes that say how long a message is
MODULE: Final = "actors.llm_gateway.schema_process"
TOO_LONG: Final = "the schema takes too long, or too much memory, to compile or to validate with"

_log = logging.getLogger("tidegate.gateway")


class Job(msgspec.Struct, frozen=True):
    """What the process is to do.

    Attributes:
        schema: the JSON of a schema.
        text: the answer; None to compile the schema only.
    """

    schema: bytes
    text: str | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What came of a job.

    Attributes:
        result: the JSON of an answer that matches; empty otherwise.
        code: of a failure; empty for none.
        detail: of the failure.
        errors: where the schema is wrong, or the answer does not match.
    """

    result: bytes = b""
    code: str = ""
    detail: str = ""
    errors: tuple[FieldError, ...] = ()


class SchemaWorker:
    """Runs jobs in the process, one after the other.

    ::

        idle --job--> working --done--> idle
                         +--bound, crash--> ended --job--> working
    """

    def __init__(self) -> None:
        self._process: Process | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def run(self, job: Job) -> Outcome:
        """Run a job.

        Raises:
            InvalidRequest: ``schema_too_complex``: the job has met a bound.
            Overloaded: too many jobs wait, or the process can't be started.
        """
        if self._waiting >= MAX_WAITING:
            raise Overloaded("too many schemas wait to be compiled")
        self._waiting += 1
        try:
            async with self._turn:
                return await self._run(job)
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """End the process. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(EXIT_TIMEOUT):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _run(self, job: Job) -> Outcome:
        whole = False
        try:
            process = self._process
            if process is None or process.returncode is not None:
                process = await self._start()
            async with asyncio.timeout(JOB_TIMEOUT):
                outcome = await _exchange(process, job)
            whole = True
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError) as error:
            fields = {"bytes": len(job.schema), "cause": type(error).__name__}
            _log.warning("schema_job_ended", extra={"fields": fields})
            fault = FieldError("$.schema", TOO_LONG)
            raise InvalidRequest(TOO_LONG, code="schema_too_complex", errors=(fault,)) from error
        finally:
            if not whole:
                await self._kill()
        return outcome

    async def _start(self) -> Process:
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", MODULE, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True
            )
            async with asyncio.timeout(START_TIMEOUT):
                await _exchange(process, Job(b"{}"))
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise Overloaded("the process that compiles schemas can't be started") from error
        return process

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.kill()
        await asyncio.shield(process.wait())


async def _exchange(process: Process, job: Job) -> Outcome:
    if process.stdin is None or process.stdout is None:
        raise ConnectionError("the process has no pipes")
    data = msgspec.msgpack.encode(job)
    process.stdin.write(len(data).to_bytes(PREFIX) + data)
    await process.stdin.drain()
    size = int.from_bytes(await process.stdout.readexactly(PREFIX))
    return msgspec.msgpack.decode(await process.stdout.readexactly(size), type=Outcome)
