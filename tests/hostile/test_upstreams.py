"""Bytes of upstreams that mean harm: counted work, bounded buffers, a typed end; and numbers that are only claims."""

import asyncio
import json
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.embeddings.call import _believed as believed_tokens
from actors.ledger import MemoryLedger
from actors.llm_gateway.providers.bedrock import BedrockSplitter
from actors.llm_gateway.usage import used
from actors.upstream.pricing import Rates
from actors.wire import client, encoding
from actors.wire.client import WireClient
from actors.wire.connection import MAX_READ
from actors.wire.encoding import DecompressedBody
from actors.wire.failures import MAX_RETRY_AFTER, retry_after
from actors.wire.json_body import MAX_PARTS
from actors.wire.limits import allowances
from actors.wire.sse import EventSplitter, Splitter
from protocol.anthropic.reader import MessagesReader
from protocol.budgets import Account, Budget
from protocol.errors import ProviderError
from protocol.ledger import Spend
from protocol.llm import ChatMessage, ChatRequest, Usage
from protocol.openai.embeddings import read_vectors
from protocol.openai.reader import ChatReader
from protocol.openai.vendor_fields import folded
from protocol.upstream import AnswerReader, Deltas

CORPUS: Final = Path(__file__).parent / "corpus" / "upstreams"
REQUEST: Final = ChatRequest(model="m", messages=(ChatMessage(role="user", content="hi"),))
HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
READERS: Final[tuple[Callable[[], AnswerReader], ...]] = (ChatReader, MessagesReader)
LIMIT: Final = 100_000


def chunk(content: Any = "x", finish: str | None = None, **delta: Any) -> bytes:  # noqa: ANN401 - JSON
    """Return the data of a chunk."""
    choice = {"index": 0, "delta": {"content": content, **delta}, "finish_reason": finish}
    return json.dumps({"id": "c", "model": "m", "choices": [choice]}).encode()


def event(data: bytes) -> bytes:
    """Return an event."""
    return b"data: " + data + b"\n\n"


def steps_of(work: Callable[[], object]) -> int:
    """Return how many lines of Python ``work`` runs."""
    count = 0

    def trace(_frame: FrameType, _kind: str, _argument: object) -> Any:  # noqa: ANN401 - itself
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


class Counting(ChatReader):
    """A reader that counts the events since other tasks have run."""

    __slots__ = ("all", "most", "since")

    def __init__(self) -> None:
        super().__init__()
        self.since = self.most = self.all = 0

    def feed(self, data: bytes, into: Deltas) -> None:
        """Count an event."""
        self.since += 1
        self.all += 1
        self.most = max(self.most, self.since)
        super().feed(data, into)

    async def watch(self) -> None:
        """Begin anew whenever other tasks run."""
        while True:
            self.since = 0
            await asyncio.sleep(0)


@asynccontextmanager
async def upstream(pieces: Callable[[], Iterator[bytes]]) -> AsyncIterator[str]:
    """Serve these bytes as the answer to any request."""
    tasks: set[asyncio.Task[Any] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces():
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)  # a reader of the same loop
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        await asyncio.gather(*[task for task in tasks if task is not None])


async def read(pieces: Callable[[], Iterator[bytes]], reader: AnswerReader) -> tuple[str, int]:
    """Read an answer to its end; returns the code of its failure, empty for none, and the number of deltas."""
    wire = WireClient()
    await wire.open()
    count = 0
    try:
        async with upstream(pieces) as url, wire.stream(url, b"{}", {}, reader, connect_timeout=5.0) as answer:
            async for deltas in answer:
                count += len(deltas)
    except ProviderError as error:
        return error.code, count
    finally:
        await wire.close()
    return "", count


def endless(begin: bytes, piece: bytes) -> Callable[[], Iterator[bytes]]:
    """Return an answer without end."""

    def pieces() -> Iterator[bytes]:
        yield begin
        while True:
            yield piece * max(1, 100_000 // len(piece))

    return pieces


def compressed(piece: bytes, layers: int = 1) -> Callable[[], Iterator[bytes]]:
    """Return an answer without end, compressed."""

    def pieces() -> Iterator[bytes]:
        packers = [zlib.compressobj(9, zlib.DEFLATED, 31) for _ in range(layers)]
        yield HEAD + b"Content-Encoding: " + b", ".join([b"gzip"] * layers) + b"\r\n\r\n"
        while True:
            data = piece * max(1, 100_000 // len(piece))
            for packer in packers:
                data = packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)
            yield data

    return pieces


SAY: Final = event(chunk())
ENDLESS: Final = {
    "headers": endless(HEAD, b"X-A: " + b"a" * 100 + b"\r\n"),
    "one header": endless(HEAD + b"X: ", b"a"),
    "interim heads": endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "status line": endless(b"", b"H"),
    "chunk size": endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "chunk extension": endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;", b"a"),
    "comments": endless(HEAD + b"\r\n", b": c\n\n"),
    "comments after content": endless(HEAD + b"\r\n" + SAY, b": c\n\n"),
    "blank lines": endless(HEAD + b"\r\n", b"\n"),
    "carriage returns": endless(HEAD + b"\r\n", b"\r"),
    "data lines": endless(HEAD + b"\r\n", b"data: x\n"),
    "blank data lines": endless(HEAD + b"\r\n", b"data:\n"),
    "other fields": endless(HEAD + b"\r\n", b"id: 1\n"),
    "names": endless(HEAD + b"\r\nevent: ", b"x"),
    "empty events": endless(HEAD + b"\r\n", event(chunk(""))),
    "empty objects": endless(HEAD + b"\r\n", event(b"{}")),
    "empty after content": endless(HEAD + b"\r\n" + SAY, event(b"{}")),
    "one event": endless(HEAD + b"\r\ndata: ", b"x"),
    "text": endless(HEAD + b"\r\n", event(chunk("x" * 100_000))),
    "gzip of comments": compressed(b": c\n\n"),
    "gzip of blank lines": compressed(b"\n"),
    "gzip of data lines": compressed(b"data: x\n"),
    "gzip of nothing": compressed(event(b"{}")),
    "gzip of gzip": compressed(b": c\n\n", layers=2),
    "gzip of one event": compressed(b"x"),
}


@pytest.mark.parametrize("name", [name for name in ENDLESS if name != "text"])
async def test_what_has_no_end_and_no_content_ends_as_a_failure(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a count of bytes, lines or events; and no more than a step of events is read before other tasks run."""
    monkeypatch.setattr(client, "MAX_IDLE_EVENTS", 2000)
    reader = Counting()
    watching = asyncio.create_task(reader.watch())
    try:
        code, count = await read(ENDLESS[name], reader)
    finally:
        watching.cancel()
    assert code in ("response_too_large", "provider_bad_response", "provider_stream_broken")
    assert count <= 1
    assert reader.most <= client.MAX_STEP_EVENTS
    assert reader.all <= client.MAX_IDLE_EVENTS + 2 * client.MAX_STEP_EVENTS + client.FORGIVEN


async def test_a_step_is_bounded_where_all_events_come_at_once() -> None:
    """Events of one network read, and JSON lines of a whole body, are read a step at a time, and none is lost."""
    many = 3000
    lines = chunk() + b"\n"
    bodies = (
        HEAD + b"\r\n" + SAY * many + event(chunk("", "stop")) + event(b"[DONE]"),
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + lines * many + chunk("", "stop"),
    )
    for body in bodies:
        reader = Counting()
        watching = asyncio.create_task(reader.watch())
        code, count = await read(lambda body=body: iter([body]), reader)  # type: ignore[misc]
        watching.cancel()
        assert (code, count) == ("", many)
        assert reader.most <= client.MAX_STEP_EVENTS


class Bytes:
    """A body that a test holds."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads = 0

    async def read(self) -> bytes:
        """Return what is left, in pieces of the size that a connection returns."""
        self.reads += 1
        piece, self.data = self.data[:MAX_READ], self.data[MAX_READ:]
        return piece


async def inflated(body: DecompressedBody) -> tuple[str, int, int]:
    """Return the code of the failure, the bytes that came, and the most of one step."""
    total = most = 0
    try:
        while piece := await body.read():
            total += len(piece)
            most = max(most, len(piece))
    except ProviderError as error:
        return error.code, total, most
    return "", total, most


async def test_inflation_is_bounded_in_steps_total_and_ratio() -> None:
    """A bomb ends by its ratio; what is compressed as answers are passes; rows of empty members and zeros end."""
    bomb = Bytes(zlib.compress(b"\0" * 60_000_000, 9))
    code, total, most = await inflated(DecompressedBody(bomb))
    assert code == "response_too_large"
    assert total <= encoding.UNMEASURED + encoding.MAX_STEP_BYTES
    assert most <= encoding.MAX_STEP_BYTES
    honest = b"".join(event(chunk(f"{number * 7919 % 10_007}")) for number in range(20_000))
    assert await inflated(DecompressedBody(Bytes(zlib.compress(honest)))) == ("", len(honest), most)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    member = packer.compress(b"") + packer.flush()
    row = Bytes(member * 100_000)
    assert (await inflated(DecompressedBody(row)))[1] == 0
    assert row.reads <= 4
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = Bytes(packer.compress(b"x") + packer.flush() + b"\0" * 10_000_000)
    assert await inflated(DecompressedBody(zeros)) == ("", 1, 1)
    assert zeros.reads <= 4


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":[' + b"[]," * 200_000 + b"[]]}",
        b'{"choices":[' + b"{}," * 200_000 + b"{}]}",
        b"{" + b",".join(b'"k%d":1' % number for number in range(200_000)) + b"}",
        b'{"choices":[{"index":0,"delta":{"content":' + b"[" * 400 + b'"x",' * 200_000 + b'"x"' + b"]" * 400 + b"}}]}",
    ],
)
async def test_an_event_of_too_many_values_is_not_decoded(data: bytes) -> None:
    """Their number is counted in the bytes: decoding them would stop everything else."""
    assert data.count(b",") > MAX_PARTS
    for body in (
        HEAD + b"\r\n" + event(data),
        HEAD.replace(b"text/event-stream", b"application/json") + b"\r\n" + data,
    ):
        reader = Counting()
        assert (await read(lambda body=body: iter([body]), reader))[0] == "response_too_large"  # type: ignore[misc]
        assert reader.all == 0


PIECES: Final[dict[str, Callable[[int], Callable[[], object]]]] = {
    "fields of many names": lambda n: lambda: folded([{f"k{i}": 1 for i in range(n)}, *[{"k0": 1}] * n]),
    "rows of thoughts": lambda n: lambda: folded([[{"type": "thinking", "x": i}] for i in range(n)]),
    "finish reasons with each text": lambda n: lambda: fed([chunk("ab", "stop")] * n),
    "pieces of arguments": lambda n: lambda: fed([call("x")] * n),
    "named pieces of arguments": lambda n: lambda: fed([call("{}", name="f")] * n),
    "blocks of nothing": lambda n: lambda: fed_blocks([start(i, {"type": "text", "text": ""}) for i in range(n)]),
    "deltas of a vendor's block": lambda n: (
        lambda: fed_blocks([start(0, {"type": "own"}), *[delta(0, {"type": "own_delta", "data": "x"})] * n])
    ),
    "waiting blocks": lambda n: (
        lambda: fed_blocks(
            [start(0, {"type": "own_tool_use"}), *[delta(0, {"partial_json": '"x'})] * n, *[start(5, None)] * n]
        )
    ),
}


def call(arguments: str, **function: Any) -> bytes:  # noqa: ANN401 - JSON
    """Return a piece of a call."""
    return chunk(None, tool_calls=[{"index": 0, "id": "a", "function": {"arguments": arguments, **function}}])


def start(index: int, block: Any) -> bytes:  # noqa: ANN401 - JSON
    """Return the begin of a block."""
    return json.dumps({"type": "content_block_start", "index": index, "content_block": block}).encode()


def delta(index: int, fields: Any) -> bytes:  # noqa: ANN401 - JSON
    """Return a delta of a block."""
    return json.dumps({"type": "content_block_delta", "index": index, "delta": fields}).encode()


def fed(events: list[bytes], reader: AnswerReader | None = None) -> str:
    """Feed a reader to the end; returns the code of its failure."""
    reader = reader or ChatReader()
    into: Deltas = []
    try:
        for data in events:
            reader.feed(data, into)
        reader.close(into, proper=True)
    except ProviderError as error:
        return error.code
    return ""


def fed_blocks(events: list[bytes]) -> str:
    """Feed a reader of Anthropic's dialect."""
    return fed(events, MessagesReader())


@pytest.mark.parametrize("name", PIECES)
def test_three_times_as_much_is_three_times_the_work(name: str) -> None:
    """Lines of Python that run: no row of pieces is looked at again with each new piece."""
    small, large = (steps_of(PIECES[name](count)) for count in (514, 1542))
    assert large <= 5 * small + 1000


@pytest.mark.parametrize(
    "data",
    [
        chunk(None, tool_calls=[{"index": 0, "id": "a", "function": {"name": "f", "arguments": "x"}}] * 2000),
        chunk([{"type": "text", "text": "a"}, {"type": "thinking", "thinking": "b"}] * 2000),
        json.dumps({"choices": [{"delta": dict.fromkeys(map(str, range(2000)), 1)}]}).encode(),
        call("", name="f" * 5000),
        chunk(None, tool_calls=[{"index": 0, "id": "a" * 100_000, "function": {"name": "f", "arguments": ""}}]),
    ],
)
def test_one_event_makes_a_bounded_number_of_parts(data: bytes) -> None:
    """What would be thousands of parts or a name without end is a failure."""
    assert fed([data]) == "response_too_large"


def test_a_whole_message_is_compared_a_bounded_number_of_times() -> None:
    """Each comparison with a long text costs as much as the text is long."""
    message = b'{"choices":[{"index":0,"message":{"content":"a b"}}]}'
    events = [chunk("a  b " * 20_000), chunk("x"), *[message] * 100_000]
    assert fed(events) == "response_too_large"


# ------------------------------------------------------------------------------------------------------ any bytes

NAMES: Final = [
    *(
        "id",
        "type",
        "index",
        "name",
        "delta",
        "message",
        "content",
        "text",
        "thinking",
        "reasoning",
        "reasoning_content",
    ),
    *(
        "reasoning_details",
        "refusal",
        "tool_calls",
        "function",
        "arguments",
        "finish_reason",
        "usage",
        "error",
        "choices",
    ),
    *("logprobs", "signature", "partial_json", "citations", "content_block", "stop_reason", "input", "data", "audio"),
    *("annotations", "prompt_tokens", "output_tokens", "code", "status"),
]
JSON: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["text", "thinking", "tool_use", "stop", "[DONE]", "error", '{"a":1}', "\ud83d"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)
SHAPED: Final = st.one_of(
    JSON,
    st.fixed_dictionaries(
        {"choices": st.lists(st.fixed_dictionaries({"delta": JSON, "finish_reason": JSON}), max_size=3)}
    ),
    st.fixed_dictionaries({"choices": st.lists(st.fixed_dictionaries({"message": JSON}), max_size=2), "usage": JSON}),
    st.fixed_dictionaries({"type": st.just("content_block_start"), "index": JSON, "content_block": JSON}),
    st.fixed_dictionaries({"type": st.just("content_block_delta"), "index": st.integers(0, 2), "delta": JSON}),
    st.fixed_dictionaries({"type": st.just("message_delta"), "delta": JSON, "usage": JSON}),
    st.fixed_dictionaries({"type": st.just("message_start"), "message": JSON}),
)


def split(splitter: Splitter, pieces: list[bytes]) -> list[bytes]:
    """Return the events of a stream as far as it can be read."""
    events: list[bytes] = []
    try:
        for piece in pieces:
            events += splitter.feed(piece)
            events += splitter.complete()
        events += splitter.end()
    except ProviderError:
        pass
    return events


@given(st.lists(st.binary(max_size=200), max_size=8), st.sampled_from([b"", b"data: ", b"\xef\xbb\xbf", b"{", b"\n"]))
def test_any_bytes_are_events_or_a_typed_failure(pieces: list[bytes], begin: bytes) -> None:
    """No splitter raises anything else, and no reader does."""
    for splitter in (EventSplitter(LIMIT), BedrockSplitter(LIMIT)):
        for data in split(splitter, [begin, *pieces]):
            for reader in READERS:
                fed([data], reader())


@given(st.lists(SHAPED, max_size=6))
def test_any_json_is_an_answer_or_a_typed_failure(values: list[Any]) -> None:
    """Whatever stands where, the counts of tokens are counts."""
    events = [json.dumps(value).encode("utf-8", "surrogatepass") for value in values]
    for make in READERS:
        reader = make()
        fed(events, reader)
        usage, _ = used(reader, REQUEST, 3, begun=True)
        assert usage is None or _is_possible(usage)


def test_the_kept_inputs_end_as_they_should() -> None:
    """Inputs that once did harm, a file each: any end but an untyped one."""
    kept = sorted(CORPUS.iterdir())
    assert kept
    for file in kept:
        for data in split(EventSplitter(), [file.read_bytes()]):
            for reader in READERS:
                fed([data], reader())


# --------------------------------------------------------------------------------------------------- numbers are claims

ODD: Final[tuple[Any, ...]] = (
    -1_000_000,
    -1,
    0,
    1,
    5,
    10**8,
    10**18,
    10**30,
    1.5,
    1e308,
    float("nan"),
    float("-inf"),
    "7",
    "-7",
    "x",
    None,
    [],
    {},
)
RATES: Final = Rates(
    input=Decimal("0.00000125"),
    cached_input=Decimal("0.000000125"),
    cache_write=Decimal("0.0000015"),
    output=Decimal("0.00001"),
)


def _is_possible(usage: Usage) -> bool:
    parts = usage.cached_input_tokens + usage.cache_write_input_tokens
    counts = (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.reasoning_tokens)
    return (
        all(count >= 0 for count in counts)
        and parts <= usage.input_tokens
        and usage.reasoning_tokens <= usage.output_tokens
    )


@pytest.mark.parametrize("first", ODD)
@pytest.mark.parametrize("second", ODD)
async def test_no_claim_of_usage_gives_money_back(first: object, second: object) -> None:
    """For each dialect: no count is negative, the cache's are within the input, and a spent total never falls."""
    openai = {"prompt_tokens": first, "completion_tokens": second, "prompt_tokens_details": {"cached_tokens": second}}
    anthropic = {"input_tokens": first, "output_tokens": second, "cache_read_input_tokens": second}
    closing = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": anthropic}
    answers = (
        (ChatReader(), [chunk("hi"), json.dumps({"choices": [], "usage": openai}).encode(), chunk("", "stop")]),
        (MessagesReader(), [start(0, {"type": "text", "text": "hi"}), json.dumps(closing).encode()]),
    )
    ledger = MemoryLedger(lambda: 1_800_000_000.0)
    account = Account("a", (Budget(per="day", usd=Decimal(1000)),))
    spent = Decimal(0)
    for reader, events in answers:
        fed(events, reader)
        usage, _ = used(reader, REQUEST, 2, begun=True)
        assert usage is not None
        assert _is_possible(usage)
        assert usage.input_tokens <= 200_000
        cost = RATES.cost(usage)
        assert 0 <= cost <= 10
        reservation = await ledger.reserve(account, Spend(100, Decimal("0.01")))
        await ledger.settle(reservation, Spend(usage.input_tokens + usage.output_tokens, cost))
        standing = (await ledger.spent(account))[0]
        assert standing.usd >= spent
        assert standing.reserved_usd == 0
        spent = standing.usd


@pytest.mark.parametrize("claimed", ODD)
def test_no_claim_of_an_embeddings_usage_does_either(claimed: object) -> None:
    """Tokens beyond what the inputs can have are our estimate."""
    body = json.dumps({"data": [{"index": 0, "embedding": [0.5]}], "usage": {"prompt_tokens": claimed}}).encode()
    tokens = believed_tokens(read_vectors(body, 1).tokens or 0, ("a text",))
    assert 0 <= tokens <= 1024


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=255), max_size=60))
def test_no_header_of_time_is_more_than_an_hour(text: str) -> None:
    """Or it is none."""
    for headers in ({"retry-after": text}, {"retry-after-ms": text}):
        seconds = retry_after(headers, 1.8e9)
        assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER
    for vendor in ("x-ratelimit-{}-requests", "anthropic-ratelimit-requests-{}"):
        names = {vendor.format(name): text for name in ("remaining", "limit", "reset")}
        for found in (*allowances(names, 1.8e9), *allowances({**names, vendor.format("remaining"): "0"}, 1.8e9)):
            assert found.remaining >= 0
            assert found.reset > 0


@pytest.mark.parametrize(
    "text", ["1e12", "-5", "nan", "inf", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 +2359"]
)
def test_odd_times_are_bounded(text: str) -> None:
    """As above, for what was seen."""
    seconds = retry_after({"retry-after": text}, 1.8e9)
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER
