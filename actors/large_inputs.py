"""Work on large inputs: in a thread, so that the loop turns meanwhile."""

import asyncio
import marshal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from msgspec.structs import astuple

from protocol.llm import ChatRequest

LARGE: Final = 256 * 1024  # bytes of an input from which on it is worked on in the thread
WITHOUT_REFERENCES: Final = 2  # a version of ``marshal``

T = TypeVar("T")

# One thread: several would take the interpreter's lock from each other, and the loop would wait for all of them.
_thread: Final = ThreadPoolExecutor(1, thread_name_prefix="tidegate-large-inputs")


async def aside(work: Callable[[], T]) -> T:
    """Return what ``work`` returns, run in the thread. A caller that is cancelled takes it out of the queue."""
    return await asyncio.get_running_loop().run_in_executor(_thread, work)


def is_large(request: ChatRequest) -> bool:
    """Whether a request is large: about its size in JSON, without the time that encoding it takes."""
    size = 0
    others: list[object] = []
    for message in request.messages:
        content = message.content
        if isinstance(content, str):
            size += len(content)
        else:
            others += map(astuple, content)
        if message.tool_calls or message.extra:
            others += map(astuple, message.tool_calls)
            others.append(message.extra)
    if request.tools or request.schema or request.extra or request.stop:
        others += map(astuple, request.tools)
        others += (request.schema, request.extra, request.stop)
    return size > LARGE or (bool(others) and size + _size(others) > LARGE)


def _size(values: list[object]) -> int:
    try:
        return len(marshal.dumps(values, WITHOUT_REFERENCES))
    except ValueError:  # an object that JSON has not: it is left to the encoder
        return LARGE + 1
