"""Bodies that are made to cost: what is inflated, decoded and kept is bounded; a refused call costs nothing."""

import gzip
import io
import json
import zlib
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from actors.fair_shares import Tenants
from actors.testing import Reply, ScriptedUpstream, Stall, say
from protocol.errors import InvalidRequest, Overloaded
from protocol.json.values import has_more_values
from service.body_shares import BodyShares
from service.context import CallContext
from service.http import bodies, inflate
from service.http.inflate import FREE, RATIO, Inflated
from tests.service.conftest import Running, Start

KEY: Final = "a-key-of-16-chars"
HEADERS: Final = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
GZIP: Final = HEADERS | {"Content-Encoding": "gzip"}
CHAT: Final[dict[str, Any]] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
BODY: Final = json.dumps(CHAT).encode()
BOMB: Final = gzip.compress(b" " * (64 * 1024 * 1024))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each step of inflation gave."""
    sizes: list[int] = []
    add = Inflated._add

    def noted(made: Inflated, chunk: bytes) -> None:
        sizes.append(len(chunk))
        add(made, chunk)

    monkeypatch.setattr(Inflated, "_add", noted)
    return sizes


async def serving(start: Start, **settings: Any) -> Running:  # noqa: ANN401 - settings
    """Start a service with a key."""
    return await start(api_keys=(SecretStr(KEY),), **settings)


async def post(running: Running, data: bytes, path: str = "/v1/chat/completions", **headers: str) -> tuple[int, str]:
    """Post bytes; return the status and the code."""
    async with running.client.post(path, data=io.BytesIO(data), headers=headers) as response:
        body = json.loads(await response.read())
        return response.status, body.get("code") or body.get("error", {}).get("code", "")


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "/v1/chat/completions", {"Authorization": "Bearer nobody"}),
        ("POST", "/v1/chat/completions", {}),
        ("POST", "/nowhere", HEADERS),
        ("GET", "/v1/models", HEADERS),
        ("GET", "/api/health/live", {}),
        ("DELETE", "/api/requests/req_1", HEADERS),
    ],
)
async def test_nothing_is_inflated_for_a_body_that_nobody_reads(
    start: Start, steps: list[int], monkeypatch: pytest.MonkeyPatch, method: str, path: str, headers: dict[str, str]
) -> None:
    """Not by the service, and not by the library below it."""
    monkeypatch.setattr(zlib, "decompressobj", lambda *_, **__: pytest.fail("something was inflated"))
    running = await serving(start)
    sent = headers | {"Content-Encoding": "gzip"}
    async with running.client.request(method, path, data=BOMB, headers=sent) as response:
        assert response.status in {200, 401, 404, 405}
    assert steps == []


async def test_a_bomb_is_inflated_to_its_bound(start: Start, steps: list[int]) -> None:
    """A step at a time, and no further than the ratio allows."""
    running = await serving(start)
    assert await post(running, BOMB, **GZIP) == (413, "body_too_large")
    assert sum(steps) <= FREE + RATIO * len(BOMB) + inflate.STEP
    assert max(steps) <= inflate.STEP
    assert await post(running, gzip.compress(b"[" * 3_000_000), **GZIP) == (413, "body_too_large")


async def test_gzip_is_read(start: Start, upstream: ScriptedUpstream) -> None:
    """In one member, in several, and with zeros behind it."""
    running = await serving(start)
    for data in (
        gzip.compress(BODY),
        gzip.compress(BODY[:9]) + gzip.compress(BODY[9:]),
        gzip.compress(BODY) + b"\0" * 9,
    ):
        upstream.script(say("yes"))
        assert (await post(running, data, **GZIP))[0] == 200
        assert upstream.received[-1].body["messages"] == CHAT["messages"]


@pytest.mark.parametrize(
    ("data", "encoding", "expected"),
    [
        (gzip.compress(BODY)[:-9], "gzip", (400, "invalid_request")),
        (gzip.compress(BODY)[:-1] + b"x", "gzip", (400, "invalid_request")),
        (gzip.compress(BODY) + b"more", "gzip", (400, "invalid_request")),
        (gzip.compress(b"") * 99, "gzip", (400, "invalid_request")),
        (BODY, "gzip", (400, "invalid_request")),
        (b"", "gzip", (400, "invalid_request")),
        (gzip.compress(gzip.compress(BODY)), "gzip", (400, "malformed_json")),
        (gzip.compress(gzip.compress(BODY)), "gzip, gzip", (415, "unsupported_media_type")),
        (zlib.compress(BODY), "deflate", (415, "unsupported_media_type")),
        (BODY, "br", (415, "unsupported_media_type")),
        (BODY, "x" * 500, (415, "unsupported_media_type")),
    ],
)
async def test_what_is_no_gzip_is_refused(start: Start, data: bytes, encoding: str, expected: tuple[int, str]) -> None:
    """In the surface's form, with a code."""
    running = await serving(start)
    assert await post(running, data, "/api/requests", **HEADERS | {"Content-Encoding": encoding}) == expected


@given(st.binary(max_size=400), st.integers(0, 400), st.integers(1, 64))
async def test_any_change_of_gzip_is_read_or_refused(change: bytes, at: int, size: int) -> None:
    """However it is cut into pieces; no other error, and never more than the bound."""
    whole = gzip.compress(BODY * 40)
    data = whole[:at] + change + whole[at + len(change) :]
    made = Inflated(10_000)
    code = ""
    try:
        for start in range(0, len(data), size):
            await made.feed(data[start : start + size])
        assert len(made.end()) <= 10_000
    except InvalidRequest as error:
        code = error.code
    assert code in {"", "invalid_request", "body_too_large"}
    assert made.size <= 10_000 + inflate.STEP


SHAPES: Final = {
    "numbers": b"[" + b"1," * 60_000 + b"1]",
    "members": json.dumps({f"k{n}": n for n in range(80_000)}).encode(),
    "arrays": b"[" * 60_000,
    "objects": b'{"a":' * 60_000,
    "messages": json.dumps([{"role": "user", "content": "x"}] * 33_000).encode(),
    "texts": b"[" + b'"",' * 60_000 + b'""]',
    "escapes": b"[" + b'"\\\\",' * 60_000 + b'""]',
}


@pytest.mark.parametrize("shape", list(SHAPES))
async def test_many_values_are_refused_undecoded(start: Start, monkeypatch: pytest.MonkeyPatch, shape: str) -> None:
    """On every surface that takes large bodies."""
    monkeypatch.setattr(bodies, "decode_submit", lambda *_: pytest.fail("the body was decoded"))
    running = await serving(start)
    for path in ("/v1/chat/completions", "/v1/messages", "/v1/responses", "/api/requests"):
        status, code = await post(running, SHAPES[shape], path, **HEADERS)
        assert (status, code) in {(413, "too_many_values"), (413, "")}, path


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.sampled_from('a,"[{\\:\n'), max_size=6),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(st.text(st.sampled_from('b,"\\['), max_size=3), inner, max_size=4),
    ),
    max_leaves=30,
)  # fmt: skip


def values_of(value: Any) -> int:  # noqa: ANN401 - JSON
    """Count the values as a person would."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(values_of, inside))


@given(JSON)
def test_values_are_counted_as_they_are(value: Any) -> None:  # noqa: ANN401 - JSON
    """Commas and brackets in texts are none; every container counts for itself and for what it holds."""
    data, count = json.dumps(value, separators=(",", ":")).encode(), values_of(value)
    assert not has_more_values(data, 2 * count)
    assert has_more_values(data, count // 2 - 1) or count < 4


def test_a_long_text_is_one_value() -> None:
    """A prompt of a million commas is no million values."""
    assert not has_more_values(json.dumps({"content": 'a,b\\",[{' * 200_000}).encode())


async def test_large_bodies_are_shared(start: Start, upstream: ScriptedUpstream) -> None:
    """A tenant at its share is refused, another one is not; what has ended counts no longer."""
    running = await serving(start, max_bodies_bytes=100_000)
    large = json.dumps(CHAT | {"messages": [{"role": "user", "content": "x" * 120_000}]}).encode()
    assert await post(running, large, **HEADERS) == (503, "overloaded")
    fits = json.dumps(CHAT | {"messages": [{"role": "user", "content": "x" * 40_000}]}).encode()
    for _ in range(4):
        upstream.script(say("yes"))
        assert (await post(running, fits, **HEADERS))[0] == 200
    assert running.container.bodies._shares.total == 0


def test_a_share_is_taken_and_given_back() -> None:
    """By a call, for its tenant."""
    shares = BodyShares(1000, Tenants(2, named=("",), open=False))
    call = CallContext("", "", 0.0)
    shares.take(call, 600)
    with pytest.raises(Overloaded):
        shares.take(CallContext("", "", 0.0), 600)
    shares.give_back(call)
    assert call.body_bytes == 0
    shares.take(call, 600)


async def test_the_input_of_running_requests_is_bounded(start: Start, upstream: ScriptedUpstream) -> None:
    """Also where the call that brought it is over; what ends makes room."""
    upstream.script(*[Reply(before=(Stall(),)) for _ in range(3)])
    running = await serving(start, max_bodies_bytes=300_000)
    paths, statuses = [], []

    async def submit(number: int) -> None:
        body = {"messages": [{"role": "user", "content": f"{number} " + "x" * 100_000}]}
        async with running.client.post("/api/requests", json=body, headers=HEADERS) as made:
            statuses.append(made.status)
            paths.append(made.headers.get("Location", ""))

    for number in range(4):
        await submit(number)
    assert statuses == [202, 202, 503, 503]
    await (await running.client.post(f"{paths[0]}/cancel", headers=HEADERS)).read()
    await submit(4)
    assert statuses[-1] == 202


async def test_a_long_body_without_a_length_is_counted(start: Start) -> None:
    """In chunks, as it comes."""
    running = await serving(start, max_bodies_bytes=100_000)

    async def pieces() -> Any:  # noqa: ANN401 - an iterator of bytes
        for _ in range(100):
            yield b" " * 10_000

    async with running.client.post("/v1/chat/completions", data=pieces(), headers=HEADERS) as response:
        assert response.status == 503
    assert running.container.bodies._shares.total == 0
