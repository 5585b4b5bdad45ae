import gzip
import zlib
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.wire.connector import Dialer
from actors.wire.encoding import PIECE, Inflated
from actors.wire.endpoint import Endpoint
from actors.wire.pool import Pool
from actors.wire.post import Post
from protocol.errors import ProviderError
from tests.actors.wire.peer import Link, answering, peer


class Pieces:
    """A body that comes in these pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = [*pieces]

    async def read(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


async def whole(body: Inflated) -> bytes:
    """Read all of it."""
    chunks = []
    while chunk := await body.read():
        assert len(chunk) <= PIECE
        chunks.append(chunk)
    return b"".join(chunks)


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
@pytest.mark.parametrize("size", [1, 7, 1_000_000])
async def test_what_is_compressed_is_read(compress: Callable[[bytes], bytes], size: int) -> None:
    """In pieces of any size, and one that was compressed a thousandfold in pieces of a bounded one."""
    text = b"x" * (8 * PIECE) + bytes(range(256))
    packed = compress(text)
    assert await whole(Inflated(Pieces(*(packed[at : at + size] for at in range(0, len(packed), size))))) == text


async def test_events_come_as_they_are_flushed() -> None:
    """Nothing that can be read waits for what is to come."""
    packer = zlib.compressobj(wbits=31)
    pieces = [packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH) for text in (b"one", b"two")]
    body = Inflated(Pieces(*pieces, packer.flush()))
    assert [await body.read() for _ in range(3)] == [b"one", b"two", b""]


@pytest.mark.parametrize("pieces", [(b"nonsense",), (gzip.compress(b"hello")[:-4],), (b"",)])
async def test_what_is_not_whole_is_no_body(pieces: tuple[bytes, ...]) -> None:
    """Nonsense, and what breaks off."""
    with pytest.raises(ProviderError) as caught:
        await whole(Inflated(Pieces(*pieces)))
    assert caught.value.code == "provider_stream_broken"


async def test_what_follows_the_end_is_dropped() -> None:
    """One body was sent."""
    assert await whole(Inflated(Pieces(gzip.compress(b"a") + b"more", b"and more"))) == b"a"


@given(st.binary(max_size=300))
async def test_noise_ends(noise: bytes) -> None:
    """In bytes or a named failure."""
    body = Inflated(Pieces(noise))
    with suppress(ProviderError):
        await whole(body)


@pytest.mark.parametrize(
    ("coding", "packed", "code"),
    [
        ("", b"{}", ""),
        ("identity", b"{}", ""),
        ("gzip", gzip.compress(b"{}"), ""),
        ("GZIP", gzip.compress(b"{}"), ""),
        ("deflate", zlib.compress(b"{}"), ""),
        ("br", b"?", "provider_bad_response"),
        ("gzip, gzip", b"?", "provider_bad_response"),
    ],
)
async def test_a_body_is_undone_by_its_header(coding: str, packed: bytes, code: str) -> None:
    """We ask for no compression; where it comes all the same, the usual ones are read."""

    async def play(link: Link) -> None:
        told = b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (coding.encode(), len(packed))
        await answering(link, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + told + packed)

    async with peer(play) as server:
        pool = Pool(Dialer(), limit=0)
        endpoint = Endpoint(server.url, accept="application/json")
        if code:
            with pytest.raises(ProviderError) as caught:
                await Post(endpoint, {}, b"{}", 5.0).send(pool, "application/json")
            assert caught.value.code == code
        else:
            connection, body = await Post(endpoint, {}, b"{}", 5.0).send(pool, "application/json")
            assert await body.read() == b"{}"
            assert await body.read() == b""
            pool.release(connection)
        assert pool.busy == 0
        await pool.close()
