"""Bodies that are compressed, although we ask for ones that are not."""

import zlib
from typing import Final, Protocol

from actors.wire.connection import Connection
from protocol.errors import ProviderError

PIECE: Final = 256 * 1024  # bytes, the most that one step gives, however well they were compressed
GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS
CODINGS: Final = ("gzip", "x-gzip", "deflate")


class Body(Protocol):
    """The body of an answer, as it comes."""

    async def read(self) -> bytes:
        """Return what has come since it was last asked, once there is something; nothing at its end.

        Raises:
            ProviderError: ``provider_stream_broken``: it breaks off, or can't be read.
        """


def body_of(connection: Connection) -> Body:
    """Return the body of the answer whose head has come on ``connection``.

    Raises:
        ProviderError: ``provider_bad_response``: it is compressed in a way that we can't undo.
    """
    coding = connection.headers.get("content-encoding", "").strip().lower()
    if coding in ("", "identity"):
        return connection
    if coding not in CODINGS:
        raise ProviderError(code="provider_bad_response")
    return Inflated(connection)


class Inflated:
    """A body that was compressed with gzip or deflate.

    Args:
        body: as it comes.
    """

    __slots__ = ("_body", "_full", "_inflate", "_left")

    def __init__(self, body: Body) -> None:
        self._body = body
        self._inflate = zlib.decompressobj(GZIP_OR_ZLIB)
        self._left = b""
        self._full = False  # whether the last step gave as much as it may, so that more may be there

    async def read(self) -> bytes:
        """Return some of what has come."""
        inflated = b""
        while not inflated:
            if not self._left and not self._full:
                self._left = await self._body.read()
                if not self._left:
                    return self._end()
            inflated = self._step()
        return inflated

    def _step(self) -> bytes:
        if self._inflate.eof:
            self._left = b""
        try:
            inflated = self._inflate.decompress(self._left, PIECE)
        except zlib.error as error:
            raise ProviderError(code="provider_stream_broken") from error
        self._left = self._inflate.unconsumed_tail
        self._full = len(inflated) >= PIECE
        return inflated

    def _end(self) -> bytes:
        if not self._inflate.eof:
            raise ProviderError(code="provider_stream_broken")
        return b""
