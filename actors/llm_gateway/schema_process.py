"""The process of ``schema_worker``: ``python -m actors.llm_gateway.schema_process``, jobs in, outcomes out.

It ends when its standard input does.
"""

import sys
from contextlib import suppress
from typing import Final

import msgspec

from actors.llm_gateway.schema import Validator, validated
from actors.llm_gateway.schema_worker import PREFIX, Job, Outcome
from protocol.errors import SchemaMismatch, TidegateError

MEMORY: Final = 1 << 30  # bytes of address space beyond what the process has at its start
KEPT: Final = 16  # compiled schemas


def main() -> None:
    """Run jobs until standard input ends."""
    _bound_memory()
    validators: dict[bytes, Validator] = {}
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while prefix := source.read(PREFIX):
        job = msgspec.msgpack.decode(source.read(int.from_bytes(prefix)), type=Job)
        data = msgspec.msgpack.encode(run(job, validators))
        sink.write(len(data).to_bytes(PREFIX) + data)
        sink.flush()


def run(job: Job, validators: dict[bytes, Validator]) -> Outcome:
    """Run one job, with the schemas that are compiled already."""
    try:
        validator = validators.get(job.schema)
        if validator is None:
            if len(validators) >= KEPT:
                validators.clear()
            validator = validators[job.schema] = Validator(msgspec.json.decode(job.schema), whatever_it_takes=True)
        if job.text is None:
            return Outcome()
        return Outcome(result=bytes(validated(job.text, validator)))
    except SchemaMismatch as error:
        return Outcome(code=error.code, detail=error.detail, errors=error.errors)
    except TidegateError as error:
        return Outcome(code=error.code, detail=error.detail, errors=error.errors)


def _bound_memory() -> None:
    with suppress(ImportError, ValueError, OSError):  # there is no such bound on Windows
        import resource  # noqa: PLC0415 - as above

        with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - not on every system
            pages = int(statm.read().split()[0])
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    main()
