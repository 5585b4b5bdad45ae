import asyncio
import gzip
import zlib
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.wire.connector import Connector
from actors.wire.encoding import MAX_STEP_BYTES, DecompressedBody
from actors.wire.pool import ConnectionPool
from actors.wire.post import PostRequest
from actors.wire.url import UpstreamUrl
from protocol.errors import ProviderError
from tests.actors.wire.peer import Link, answering, peer


class Pieces:
    """A body that is read in these pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = [*pieces]

    async def read(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


async def whole(body: DecompressedBody) -> bytes:
    """Read the whole body."""
    chunks = []
    while chunk := await body.read():
        assert len(chunk) <= MAX_STEP_BYTES
        chunks.append(chunk)
    return b"".join(chunks)


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
@pytest.mark.parametrize("size", [1, 7, 1_000_000])
async def test_what_is_compressed_is_read(compress: Callable[[bytes], bytes], size: int) -> None:
    """Compressed bodies are read in pieces of any size, and each read returns at most ``MAX_STEP_BYTES``."""
    text = b"x" * (8 * MAX_STEP_BYTES) + bytes(range(256))
    packed = compress(text)
    assert (
        await whole(DecompressedBody(Pieces(*(packed[at : at + size] for at in range(0, len(packed), size))))) == text
    )


async def test_events_come_as_they_are_flushed() -> None:
    """Bytes that were flushed are returned without waiting for more."""
    packer = zlib.compressobj(wbits=31)
    pieces = [packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH) for text in (b"one", b"two")]
    body = DecompressedBody(Pieces(*pieces, packer.flush()))
    assert [await body.read() for _ in range(3)] == [b"one", b"two", b""]


@pytest.mark.parametrize("pieces", [(b"nonsense",), (gzip.compress(b"hello")[:-4],), (b"",)])
async def test_what_is_not_whole_is_no_body(pieces: tuple[bytes, ...]) -> None:
    """A body that is not compressed, or that breaks off, is ``provider_stream_broken``."""
    with pytest.raises(ProviderError) as caught:
        await whole(DecompressedBody(Pieces(*pieces)))
    assert caught.value.code == "provider_stream_broken"


@pytest.mark.parametrize("size", [1, 3, 10_000])
@pytest.mark.parametrize("rest", [b"", b"more", b"\0\0\0", b"more" + gzip.compress(b"b"), b"\x1f", b"\x1f more"])
async def test_what_follows_the_end_is_dropped(rest: bytes, size: int) -> None:
    """Bytes after the end of the compressed body are dropped."""
    packed = gzip.compress(b"a") + rest
    pieces = (packed[at : at + size] for at in range(0, len(packed), size))
    assert await whole(DecompressedBody(Pieces(*pieces))) == b"a"


@pytest.mark.parametrize("size", [1, 7, 10_000_000])
@pytest.mark.parametrize("between", [b"", b"\0" * 5])
async def test_members_of_gzip_are_one_body(between: bytes, size: int) -> None:
    """They follow each other, large, small and empty ones, also with zeros between them."""
    texts = [b"a" * (2 * MAX_STEP_BYTES), b"", b"b", b"c" * 99]
    packed = between.join(map(gzip.compress, texts))
    pieces = (packed[at : at + size] for at in range(0, len(packed), size))
    assert await whole(DecompressedBody(Pieces(*pieces))) == b"".join(texts)


async def test_a_member_that_breaks_off_is_no_body() -> None:
    """The body ends within its second member."""
    body = DecompressedBody(Pieces(gzip.compress(b"a") + gzip.compress(b"b")[:-3]))
    assert await body.read() == b"a"
    with pytest.raises(ProviderError) as caught:
        await whole(body)
    assert caught.value.code == "provider_stream_broken"


@given(st.binary(max_size=300))
async def test_noise_ends(noise: bytes) -> None:
    """Random bytes end in output or in a ``ProviderError``."""
    body = DecompressedBody(Pieces(noise))
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
        ("gzip, br", b"?", "provider_bad_response"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"{}")), ""),
        ("deflate,x-gzip", gzip.compress(zlib.compress(b"{}")), ""),
        ("utf-8, gzip", gzip.compress(b"{}"), ""),
        (", ".join(["gzip"] * 5), b"?", "provider_bad_response"),
        *[(name, b"{}", "") for name in ("utf-8", "none", "chunked", "aws-chunked", "identity, Identity", ",")],
    ],
)
async def test_a_body_is_undone_by_its_header(coding: str, packed: bytes, code: str) -> None:
    """Gzip and deflate are undone although the request asks for ``identity``; what is no coding says nothing.

    Other codings are refused, and so are too many.
    """

    async def play(link: Link) -> None:
        encoding = b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (coding.encode(), len(packed))
        await answering(link, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + encoding + packed)

    async with peer(play) as server:
        pool = ConnectionPool(Connector(), limit=0)
        url = UpstreamUrl(server.url, accept="application/json")
        if code:
            with pytest.raises(ProviderError) as caught:
                await PostRequest(url, {}, b"{}", 5.0).send(pool, "application/json")
            assert caught.value.code == code
        else:
            connection, body = await PostRequest(url, {}, b"{}", 5.0).send(pool, "application/json")
            assert await body.read() == b"{}"
            assert await body.read() == b""
            pool.release(connection)
        assert pool.busy == 0
        await pool.close()


def raw_deflate(data: bytes) -> bytes:
    """Deflate without a header."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@given(st.binary(max_size=2000), st.integers(1, 9), st.sampled_from([zlib.compress, raw_deflate]))
async def test_deflate_with_and_without_a_header(data: bytes, size: int, compress: Callable[[bytes], bytes]) -> None:
    """Both are read, in pieces of any size."""
    packed = compress(data)
    pieces = (packed[at : at + size] for at in range(0, len(packed), size))
    assert await whole(DecompressedBody(Pieces(*pieces), maybe_raw=True)) == data


async def test_other_tasks_run_between_two_steps() -> None:
    """A body that inflates does not hold the loop."""
    body, turns = DecompressedBody(Pieces(gzip.compress(b"x" * (8 * MAX_STEP_BYTES)))), 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    while await body.read():
        pass
    counting.cancel()
    assert turns >= 8
