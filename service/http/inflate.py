"""Inflation of a request's body, a step at a time."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Final

from protocol.errors import InvalidRequest

STEP: Final = 256 * 1024  # bytes that are inflated between two turns of the loop
RATIO: Final = 200  # bytes inflated for each byte received, beyond FREE; JSON has 5 to 50
FREE: Final = 1024 * 1024  # bytes that are inflated at any ratio
MEMBERS: Final = 16  # of one body
GZIP: Final = 16 + zlib.MAX_WBITS
MAGIC: Final = b"\x1f\x8b"


class Inflated:
    """Inflates gzip.

    Args:
        limit: the most bytes that come out.
        count: is called with the bytes of each step, and may refuse them.

    Attributes:
        size: bytes that have come out so far.
    """

    __slots__ = ("_chunks", "_count", "_inflate", "_limit", "_members", "_received", "size")

    def __init__(self, limit: int, count: Callable[[int], object] = lambda _: None) -> None:
        self._limit = limit
        self._count = count
        self._inflate = zlib.decompressobj(GZIP)
        self._chunks: list[bytes] = []
        self._members = 1
        self._received = 0
        self.size = 0

    async def feed(self, data: bytes) -> None:
        """Take received bytes; the loop turns after each step.

        Raises:
            InvalidRequest: ``body_too_large``, or ``invalid_request`` where they are no gzip.
        """
        self._received += len(data)
        while data:
            if self._inflate.eof:
                data = self._next_member(data)
                if not data:
                    return
            try:
                self._add(self._inflate.decompress(data, STEP))
            except zlib.error as error:
                raise undecodable() from error
            data = self._inflate.unconsumed_tail or self._inflate.unused_data
            if data:
                await asyncio.sleep(0)

    def end(self) -> bytes:
        """Return all that has come out.

        Raises:
            InvalidRequest: the end is missing.
        """
        if not self._inflate.eof:
            raise undecodable()
        return b"".join(self._chunks)

    def _add(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.size > self._limit:
            raise too_large(self._limit)
        if self.size > FREE + RATIO * self._received:
            raise InvalidRequest(f"the body inflates to over {RATIO} times its size", code="body_too_large")
        self._count(len(chunk))
        self._chunks.append(chunk)

    def _next_member(self, data: bytes) -> bytes:
        """Begin the next member of the file; only zeros may follow the last one."""
        data = data.lstrip(b"\0")
        if data:
            self._members += 1
            if self._members > MEMBERS or not data.startswith(MAGIC[: len(data)]):
                raise undecodable()
            self._inflate = zlib.decompressobj(GZIP)
        return data


async def inflated(chunks: AsyncIterator[bytes], limit: int, count: Callable[[int], object]) -> bytes:
    """Return what a gzipped body holds; raises as ``Inflated`` and ``count`` do."""
    inflate = Inflated(limit, count)
    async for chunk in chunks:
        await inflate.feed(chunk)
    return inflate.end()


def too_large(limit: int) -> InvalidRequest:
    """Return the refusal of a body of more than ``limit`` bytes."""
    return InvalidRequest(f"the body is larger than {limit} bytes", code="body_too_large")


def undecodable() -> InvalidRequest:
    """Return the refusal of a body that can't be inflated."""
    return InvalidRequest("the body is not encoded as its headers say")
