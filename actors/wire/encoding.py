"""Decompression of answers, for upstreams that compress although the request asks for ``identity``."""

import asyncio
import zlib
from typing import Final, Protocol

from actors.wire.connection import Connection
from protocol.errors import ProviderError

MAX_STEP_BYTES: Final = 64 * 1024  # the most that one step of decompression returns
MAX_STEP_INPUT: Final = 16 * 1024  # compressed bytes of one step
MAX_BODY_BYTES: Final = 512 * 1024 * 1024  # of one body, decompressed
MAX_RATIO: Final = 100  # decompressed bytes for each compressed one, beyond the first ones
UNMEASURED: Final = 16 * 1024 * 1024  # decompressed bytes for which the ratio does not matter
MAX_IDLE_INPUT: Final = 64 * 1024  # compressed bytes, one after the other, that decompress to nothing
GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS
RAW: Final = -zlib.MAX_WBITS  # deflate without a header, which browsers read too
HEADER: Final = 2  # bytes of a header that tell one from none
GZIP_HEADER: Final = b"\x1f\x8b"
MAX_CODINGS: Final = 4  # of one body
CODINGS: Final = ("gzip", "x-gzip", "deflate")
UNSUPPORTED: Final = frozenset({"br", "compress", "dcb", "dcz", "exi", "lz4", "snappy", "x-compress", "zstd"})


class Body(Protocol):
    """The body of an answer, read piece by piece."""

    async def read(self) -> bytes:
        """Wait for bytes, and return all that have been read since the last call; no bytes at the end.

        Raises:
            ProviderError: ``provider_stream_broken``: the body breaks off, or can't be read.
        """


def body_of(connection: Connection) -> Body:
    """Return the body of the answer whose head ``connection`` has read.

    Codings that are listed are undone from the last to the first. What is no coding, such as ``utf-8`` or ``none``,
    says nothing of the body.

    Raises:
        ProviderError: ``provider_bad_response``: a coding is not supported, or there are too many.
    """
    listed = connection.headers.get("content-encoding", "")
    if listed in ("", "identity"):
        return connection
    codings = [coding.strip() for coding in listed.lower().split(",")]
    if not UNSUPPORTED.isdisjoint(codings):
        raise ProviderError(code="provider_bad_response")
    codings = [coding for coding in codings if coding in CODINGS]
    if len(codings) > MAX_CODINGS:
        raise ProviderError(code="provider_bad_response")
    body: Body = connection
    for coding in reversed(codings):
        body = DecompressedBody(body, maybe_raw=coding == "deflate")
    return body


class DecompressedBody:
    """Decompresses a body of gzip, of one member or several, or of deflate, a step at a time.

    A step takes a bounded number of bytes and returns a bounded number, and other tasks run between two of them.

    Args:
        body: the compressed body.
        maybe_raw: whether it may be deflate without a header.
    """

    __slots__ = (
        "_after",
        "_body",
        "_decompressor",
        "_idle",
        "_input",
        "_maybe_raw",
        "_more",
        "_read",
        "_rest",
        "_said",
    )

    def __init__(self, body: Body, *, maybe_raw: bool = False) -> None:
        self._body = body
        self._maybe_raw = maybe_raw
        self._decompressor = zlib.decompressobj(GZIP_OR_ZLIB)
        self._rest = b""  # has been read, and is not the input of a step yet
        self._input = b""
        self._more = False  # the last step returned as much as it may, so more output may be waiting
        self._read = self._said = 0  # bytes of all input, and of all output
        self._idle = 0  # bytes of input since the last output
        self._after: bytes | None = b""  # the beginning of a header behind a member; None behind the last member

    async def read(self) -> bytes:
        """Return the next decompressed bytes, at most ``MAX_STEP_BYTES``. Other tasks run between two steps.

        Raises:
            ProviderError: ``provider_stream_broken``: the body breaks off, or is not compressed so;
                ``response_too_large``: it has more than ``MAX_BODY_BYTES``, or decompresses to far more, or to far
                less, than any answer does.
        """
        output = b""
        while not output:
            if self._input or self._more or self._rest:
                await asyncio.sleep(0)
            else:
                self._rest = await self._body.read()
                if not self._rest:
                    return self._end()
                if self._maybe_raw:
                    await self._read_header()
            if not self._input and not self._more:
                self._input, self._rest = self._rest[:MAX_STEP_INPUT], self._rest[MAX_STEP_INPUT:]
                self._idle += len(self._input)
                self._read += len(self._input)
            output = self._step()
            if not output and self._idle > MAX_IDLE_INPUT:
                if self._decompressor.eof:
                    return b""  # what follows the last member is not the body's
                raise ProviderError(code="response_too_large")
        self._count(len(output))
        return output

    def _count(self, size: int) -> None:
        """Count output, and check its bounds."""
        self._idle = 0
        self._said += size
        if self._said > min(MAX_BODY_BYTES, max(UNMEASURED, MAX_RATIO * self._read)):
            raise ProviderError(code="response_too_large")

    async def _read_header(self) -> None:
        """Look whether the body has zlib's header."""
        self._maybe_raw = False
        while len(self._rest) < HEADER and (more := await self._body.read()):
            self._rest += more
        if not (self._rest[0] & 0x0F == zlib.DEFLATED and int.from_bytes(self._rest[:HEADER]) % 31 == 0):
            self._decompressor = zlib.decompressobj(RAW)

    def _step(self) -> bytes:
        if self._decompressor.eof:
            self._begin_member()
            return b""
        try:
            output = self._decompressor.decompress(self._input, MAX_STEP_BYTES)
        except zlib.error as error:
            raise ProviderError(code="provider_stream_broken") from error
        self._input = self._decompressor.unconsumed_tail or self._decompressor.unused_data
        self._more = len(output) >= MAX_STEP_BYTES
        return output

    def _begin_member(self) -> None:
        """Begin the next member, where one follows behind the end of one. Anything else that follows is dropped."""
        given, self._input, self._more = self._input, b"", False
        if self._after is None:
            return
        rest = (self._after + given).lstrip(b"\0")
        self._after = rest if GZIP_HEADER.startswith(rest) else None
        if rest.startswith(GZIP_HEADER):
            self._after, self._input = b"", rest
            self._decompressor = zlib.decompressobj(GZIP_OR_ZLIB)

    def _end(self) -> bytes:
        if not self._decompressor.eof:
            raise ProviderError(code="provider_stream_broken")
        return b""
