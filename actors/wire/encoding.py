"""Decompression of answers, for upstreams that compress although the request asks for ``identity``."""

import asyncio
import zlib
from typing import Final, Protocol

from actors.wire.connection import Connection
from protocol.errors import ProviderError

MAX_STEP_BYTES: Final = 64 * 1024  # the most that one step of decompression returns
GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS
RAW: Final = -zlib.MAX_WBITS  # deflate without a header, which browsers read too
HEADER: Final = 2  # bytes of a header that tell one from none
CODINGS: Final = ("gzip", "x-gzip", "deflate")


class Body(Protocol):
    """The body of an answer, read piece by piece."""

    async def read(self) -> bytes:
        """Wait for bytes, and return all that have been read since the last call; no bytes at the end.

        Raises:
            ProviderError: ``provider_stream_broken``: the body breaks off, or can't be read.
        """


def body_of(connection: Connection) -> Body:
    """Return the body of the answer whose head ``connection`` has read.

    Raises:
        ProviderError: ``provider_bad_response``: the content encoding is not supported.
    """
    coding = connection.headers.get("content-encoding", "").strip().lower()
    if coding in ("", "identity"):
        return connection
    if coding not in CODINGS:
        raise ProviderError(code="provider_bad_response")
    return DecompressedBody(connection, maybe_raw=coding == "deflate")


class DecompressedBody:
    """Decompresses a body of gzip or deflate.

    Args:
        body: the compressed body.
        maybe_raw: whether it may be deflate without a header.
    """

    __slots__ = ("_body", "_decompressor", "_input", "_maybe_raw", "_more")

    def __init__(self, body: Body, *, maybe_raw: bool = False) -> None:
        self._body = body
        self._maybe_raw = maybe_raw
        self._decompressor = zlib.decompressobj(GZIP_OR_ZLIB)
        self._input = b""
        self._more = False  # the last step returned as much as it may, so more output may be waiting

    async def read(self) -> bytes:
        """Return the next decompressed bytes, at most ``MAX_STEP_BYTES``. Other tasks run between two steps."""
        output = b""
        while not output:
            if not self._input and not self._more:
                self._input = await self._body.read()
                if not self._input:
                    return self._end()
                if self._maybe_raw:
                    await self._read_header()
            else:
                await asyncio.sleep(0)
            output = self._step()
        return output

    async def _read_header(self) -> None:
        """Look whether the body has zlib's header."""
        self._maybe_raw = False
        while len(self._input) < HEADER and (more := await self._body.read()):
            self._input += more
        if not (self._input[0] & 0x0F == zlib.DEFLATED and int.from_bytes(self._input[:HEADER]) % 31 == 0):
            self._decompressor = zlib.decompressobj(RAW)

    def _step(self) -> bytes:
        if self._decompressor.eof:
            self._input = b""
        try:
            output = self._decompressor.decompress(self._input, MAX_STEP_BYTES)
        except zlib.error as error:
            raise ProviderError(code="provider_stream_broken") from error
        self._input = self._decompressor.unconsumed_tail
        self._more = len(output) >= MAX_STEP_BYTES
        return output

    def _end(self) -> bytes:
        if not self._decompressor.eof:
            raise ProviderError(code="provider_stream_broken")
        return b""
