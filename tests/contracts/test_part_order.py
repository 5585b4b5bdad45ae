"""Any interleaving of an answer's parts, through the log and every surface: the order and the content stay the same."""

import json
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.llm_gateway.answer import Assembly
from actors.log.event_log import EventLog
from actors.requests.record import RequestRecord
from actors.requests.run import Run
from actors.requests.stream import RequestStream
from protocol.answer import core_result, message_of
from protocol.anthropic.answer import MessagesEventEncoder, message_body
from protocol.anthropic.upstream import tool_input
from protocol.events import (
    Completed,
    Delta,
    Entry,
    Event,
    Position,
    ReasoningDelta,
    RefusalDelta,
    Started,
    ToolCallDelta,
    VendorBlock,
)
from protocol.llm import (
    AnswerPart,
    ChatMessage,
    ChatRequest,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    VendorPart,
    parts_of,
)
from protocol.openai.answer import ChunkEncoder, completion_body
from protocol.openai.responses_answer import response_of
from protocol.openai.responses_events import ResponseEventEncoder
from protocol.parts import PartsBuilder, Piece
from protocol.requests import Delivery, Submit
from protocol.upstream import Deltas
from protocol.websocket.out import conflated, snapshot_json, update_json
from service.client.backoff import Backoff
from service.client.endpoint import Endpoint
from service.client.following import Finished, Following
from service.client.frames import decode_frame

WEB = Path(__file__).parents[2] / "service" / "web"

ARGUMENTS = ('{"a":1}', '{"q":"}{ \\"","b":[{}]}', "{}", "", '{"cut')
BLOCKS = (
    {"type": "server_tool_use", "id": "s", "input": {"q": 1.5}},
    {"type": "web_search_tool_result", "content": []},
)
FIELDS = ({"annotations": [{"n": 1}]}, {"reasoning_details": [{"text": "hm"}]})
CITED = {"citations": [{"type": "char_location", "cited_text": "x"}]}

Action = tuple[str, Any, bool]  # what comes, its content, and whether the upstream begins a part for it

texts = st.text(min_size=1, max_size=3)
actions: st.SearchStrategy[list[Action]] = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["text", "reasoning", "refusal"]), texts, st.booleans()),
        st.tuples(st.sampled_from(["sign", "redacted"]), texts, st.just(value=False)),
        st.tuples(st.just("block"), st.sampled_from(BLOCKS), st.just(value=True)),
        st.tuples(st.just("fields"), st.sampled_from(FIELDS), st.just(value=True)),
        st.tuples(st.just("cite"), st.none(), st.just(value=False)),
        st.tuples(st.just("call"), st.sampled_from(ARGUMENTS), st.just(value=True)),
        st.tuples(st.just("more"), st.integers(0, 3), st.just(value=False)),
        st.tuples(st.just("rest"), st.none(), st.just(value=False)),
    ),
    max_size=20,
)


class Upstream:
    """Turns actions into the pieces that a reader gives, and into the parts that they should become."""

    def __init__(self) -> None:
        self.pieces: Deltas = []
        self.row: list[AnswerPart] = []
        self._part = 0
        self._calls: list[tuple[int, list[str]]] = []  # each call's place, and the arguments that it still sends
        self._open: type[AnswerPart] | None = None

    def act(self, kind: str, content: Any, *, begins: bool) -> None:  # noqa: ANN401
        """Send what an action says."""
        if begins:
            self._open = None
        getattr(self, f"_{kind}")(content)

    def _text(self, text: str) -> None:
        self._grow(TextPart, text)
        self.pieces.append(Delta(text=text, part=self._part))

    def _reasoning(self, text: str) -> None:
        self._grow(ReasoningPart, text)
        self.pieces.append(ReasoningDelta(text=text, part=self._part))

    def _refusal(self, text: str) -> None:
        self._grow(RefusalPart, text)
        self.pieces.append(RefusalDelta(text=text, part=self._part))

    def _sign(self, signature: str) -> None:
        self._grow(ReasoningPart, "")
        self.row[-1] = msgspec.structs.replace(self.row[-1], signature=signature)
        self.pieces.append(ReasoningDelta(signature=signature, part=self._part))
        self._open = None

    def _redacted(self, data: str) -> None:
        self._begin(ReasoningPart(signature=data, redacted=True))
        self.pieces.append(ReasoningDelta(signature=data, redacted=True, part=self._part))

    def _block(self, value: dict[str, Any]) -> None:
        self._begin(VendorPart(dialect="anthropic", value=value))
        self.pieces.append(VendorBlock(dialect="anthropic", value=raw(value), part=self._part))

    def _fields(self, value: dict[str, Any]) -> None:
        self._begin(VendorPart(dialect="openai", value=value))
        self.pieces.append(VendorBlock(dialect="openai", value=raw(value), part=self._part))

    def _cite(self, _: None) -> None:
        part = self.row[-1] if self.row else None
        if self._open is TextPart and isinstance(part, TextPart) and not part.extra:
            self.row[-1] = msgspec.structs.replace(part, extra={"anthropic": CITED})
            block = {"type": "text", "text": part.text, **CITED}
            self.pieces.append(VendorBlock(dialect="anthropic", value=raw(block), part=self._part))

    def _call(self, arguments: str) -> None:
        index = len(self._calls)
        self._begin(ToolCallPart(id=f"c{index}", name="f", arguments=""))
        first, *others = [arguments[at : at + 3] for at in range(0, len(arguments), 3)] or [""]
        self._calls.append((len(self.row) - 1, others))
        self.pieces.append(ToolCallDelta(index=index, id=f"c{index}", name="f", part=self._part))
        self._argue(index, first)

    def _more(self, number: int) -> None:
        waiting = [index for index, (_, pieces) in enumerate(self._calls) if pieces]
        if waiting:
            index = waiting[number % len(waiting)]
            self._argue(index, self._calls[index][1].pop(0))

    def _rest(self, _: None) -> None:
        for index, (_place, pieces) in enumerate(self._calls):
            while pieces:
                self._argue(index, pieces.pop(0))

    def _argue(self, index: int, text: str) -> None:
        place = self._calls[index][0]
        part = self.row[place]
        assert isinstance(part, ToolCallPart)
        self.row[place] = msgspec.structs.replace(part, arguments=part.arguments + text)
        self.pieces.append(ToolCallDelta(index=index, arguments=text, part=place))

    def _begin(self, part: AnswerPart) -> None:
        self.row.append(part)
        self._part, self._open = len(self.row) - 1, None

    def _grow(self, kind: type[TextPart | ReasoningPart | RefusalPart], text: str) -> None:
        if self._open is not kind:
            self._begin(kind(text=""))
            self._open = kind
        part = self.row[-1]
        assert isinstance(part, kind)
        self.row[-1] = msgspec.structs.replace(part, text=part.text + text)


def raw(value: object) -> msgspec.Raw:
    """Return a value's JSON."""
    return msgspec.Raw(msgspec.json.encode(value))


def upstream_of(told: Iterable[Action]) -> Upstream:
    """Return what an upstream sends."""
    upstream = Upstream()
    for kind, content, begins in told:
        upstream.act(kind, content, begins=begins)
    return upstream


def log_of(told: Iterable[Action]) -> tuple[list[Entry], Completed]:
    """Return the entries of an answer, and its end."""
    upstream, assembly = upstream_of(told), Assembly(1_000_000)
    assembly.add(upstream.pieces)
    pieces = [*upstream.pieces, *assembly.finish()]
    end = Completed(parts=assembly.parts)
    return [Entry(offset, event) for offset, event in enumerate([STARTED, *pieces, end], 1)], end


STARTED = Started(model="m", created=1)
REQUEST = ChatRequest(model="m", messages=(ChatMessage(role="user", content="hi"),))


def batches(entries: Sequence[Entry], sizes: Sequence[int]) -> Iterable[Sequence[Entry]]:
    """Cut entries into batches of these sizes, and the rest."""
    start = 0
    for size in sizes:
        if start < len(entries):
            yield entries[start : start + size]
        start += size
    if start < len(entries):
        yield entries[start:]


sizes = st.lists(st.integers(1, 9), max_size=8)


@given(actions, st.booleans())
def test_the_row_is_what_the_upstream_said(told: list[Action], numbered: bool) -> None:
    """The parts are those of the upstream, also where it does not number them and where two texts do not touch."""
    upstream, assembly = upstream_of(told), Assembly(1_000_000)
    expected = [
        msgspec.structs.replace(part, arguments=part.arguments or "{}") if isinstance(part, ToolCallPart) else part
        for part in upstream.row
    ]
    pieces: Deltas = list(upstream.pieces)
    assembly.add(pieces)
    assert pieces == upstream.pieces
    pieces += assembly.finish()
    assert list(assembly.parts) == expected
    log = EventLog(max_bytes=2000)
    log.append(STARTED, *pieces)
    snapshot = log.snapshot()
    assert (snapshot.parts, snapshot.text) == (assembly.parts, Completed(parts=assembly.parts).text)
    assert parts_of(message_of(assembly.parts)) == assembly.parts
    touching = any(begins and kind in ("text", "reasoning", "refusal") for kind, _, begins in told)
    if numbered or touching or any(kind == "cite" for kind, *_ in told):
        return
    unnumbered: Deltas = [msgspec.structs.replace(piece, part=0) for piece in upstream.pieces]
    again = Assembly(1_000_000)
    again.add(unnumbered)
    assert unnumbered == upstream.pieces


@given(actions, st.data())
def test_a_snapshot_and_the_rest_are_the_whole(told: list[Action], data: st.DataObject) -> None:
    """At any offset, also where the rest begins within a part."""
    entries, end = log_of(told)
    pieces = [entry.event for entry in entries if isinstance(entry.event, Piece)]
    at = data.draw(st.integers(0, len(pieces)))
    before = PartsBuilder()
    for piece in pieces[:at]:
        before.add(piece)
    after = PartsBuilder(before.parts)
    for piece in pieces[at:]:
        after.add(piece)
    assert after.parts == end.parts


class Native:
    """A program's client of the native socket, without the socket."""

    def __init__(self, epoch: str = "k", offset: int = 0) -> None:
        self.following = Following(
            cast("Endpoint", None), "req_1", after=Position(epoch, offset), first=Backoff(1), later=Backoff(1)
        )
        self.finished: Finished | None = None
        self.text = ""

    def take(self, frame: bytes) -> None:
        """Take a frame."""
        update = self.following._on_frame(decode_frame(frame.decode()))
        if isinstance(update, Finished):
            self.finished = update
        elif update is not None:
            self.text = update.text if update.replaces else self.text + update.text


@given(actions, sizes, st.data())
def test_native_frames(told: list[Action], cuts: list[int], data: st.DataObject) -> None:
    """Frame by frame, merged in any batches, and from a snapshot at any offset on."""
    entries, end = log_of(told)
    single, merged, late = Native(), Native(), Native("old")
    for entry in entries:
        single.take(update_json("req_1", entry))
    for batch in batches(entries, cuts):
        for frame in conflated("req_1", batch):
            merged.take(frame)
    log = EventLog(epoch="k")
    at = data.draw(st.integers(0, len(entries) - 1))
    log.extend(entry.event for entry in entries[:at])
    for frame in (snapshot_json("req_1", "k", log.snapshot()), *conflated("req_1", entries[at:])):
        late.take(frame)
    for client in (single, merged, late):
        assert client.following.parts == end.parts
        assert client.text == end.text
        assert client.finished is not None
        result = json.loads(bytes(client.finished.result))
        assert msgspec.convert(result["parts"], tuple[AnswerPart, ...]) == end.parts


def sse(data: bytes) -> list[Any]:
    """Return the data of each event."""
    blocks = data.decode().split("\n\n")[:-1]
    return [json.loads(line[5:]) for block in blocks for line in block.split("\n") if line.startswith("data: {")]


def message_from(events: list[Any]) -> list[Any]:
    """Put an Anthropic stream together, as strictly as the vendor's documents say: one block after the other."""
    blocks: list[Any] = []
    opened: int | None = None
    for event in events:
        kind, block = event["type"], blocks[-1] if blocks else {}
        if kind == "content_block_start":
            assert (opened, event["index"]) == (None, len(blocks))
            opened = event["index"]
            blocks.append(
                event["content_block"] | ({"input": ""} if event["content_block"]["type"] == "tool_use" else {})
            )
        elif kind == "content_block_delta":
            assert event["index"] == opened
            _grow(block, event["delta"])
        elif kind == "content_block_stop":
            assert event["index"] == opened
            opened = None
    assert opened is None
    for block in blocks:
        if block["type"] == "tool_use":
            block["input"] = msgspec.json.decode(msgspec.json.encode(tool_input(block["input"])))
    return blocks


def _grow(block: dict[str, Any], delta: dict[str, Any]) -> None:
    kind = delta["type"]
    if kind == "citations_delta":
        block.setdefault("citations", []).append(delta["citation"])
        return
    name = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}.get(kind, "input")
    block[name] += delta["partial_json"] if kind == "input_json_delta" else delta[name]


@given(actions, sizes)
def test_anthropics_surface(told: list[Action], cuts: list[int]) -> None:
    """The blocks of the stream are those of the whole answer, which are the parts in their order."""
    entries, end = log_of(told)
    encoder = MessagesEventEncoder("r", "m", "c")
    stream = b"".join(encoder.encode(batch) for batch in batches(entries, cuts))
    whole = json.loads(message_body("r", "m", end))["content"]
    assert message_from(sse(stream)) == whole
    shown = [part for part in end.parts if not isinstance(part, VendorPart) or part.dialect == "anthropic"]
    assert [_kind_of(block) for block in whole] == [_kind_of_part(part) for part in shown]


def _kind_of(block: dict[str, Any]) -> str:
    kind = str(block["type"])
    return {"thinking": "reasoning", "redacted_thinking": "reasoning"}.get(kind, kind)


def _kind_of_part(part: AnswerPart) -> str:
    if isinstance(part, VendorPart):
        return str(part.value["type"])
    return {TextPart: "text", RefusalPart: "text", ToolCallPart: "tool_use"}.get(type(part), "reasoning")


def chat_from(events: list[Any]) -> tuple[dict[str, Any], list[str]]:
    """Put an OpenAI stream together; return the message, and the order in which its fields come."""
    message: dict[str, Any] = {"role": "assistant", "content": "", "refusal": ""}
    order: list[str] = []
    for event in events:
        for name, value in event["choices"][0]["delta"].items():
            if name == "tool_calls":
                _add_call(message.setdefault("tool_calls", []), value[0])
                order.append(f"call {value[0]['index']}")
            elif isinstance(value, list):
                message[name] = message.get(name, []) + value
            elif name != "role" and value:
                message[name] = message.get(name, "") + value
                order.append(name)
    has = "tool_calls" in message or message["refusal"]
    message["content"] = message["content"] or (None if has else "")
    return message | {"refusal": message["refusal"] or None}, list(dict.fromkeys(order))


def _add_call(calls: list[Any], piece: dict[str, Any]) -> None:
    if piece["index"] == len(calls):
        calls.append({"id": piece["id"], "type": "function", "function": {"name": "", "arguments": ""}})
    function = calls[piece["index"]]["function"]
    function["name"] += piece["function"].get("name", "")
    function["arguments"] += piece["function"]["arguments"]


@given(actions, sizes)
def test_openais_surface(told: list[Action], cuts: list[int]) -> None:
    """The message of the stream is the whole one, and its fields come in the order of the parts."""
    entries, end = log_of(told)
    encoder = ChunkEncoder("r", 1, "m")
    stream = b"".join(encoder.encode(batch) for batch in batches(entries, cuts))
    message, order = chat_from(sse(stream))
    assert message == json.loads(completion_body("r", 1, "m", end))["choices"][0]["message"]
    names = {TextPart: "content", ReasoningPart: "reasoning_content", RefusalPart: "refusal"}
    expected: list[str] = []
    for part in end.parts:
        if isinstance(part, ToolCallPart):
            expected.append(f"call {sum(name.startswith('call') for name in expected)}")
        elif not isinstance(part, VendorPart) and part.text:
            expected.append(names[type(part)])
    assert order == list(dict.fromkeys(expected))


def record_of(entries: Iterable[Entry]) -> RequestRecord:
    """Return a request with these entries in its log."""
    run = Run("req_1", Submit(request=REQUEST, delivery=Delivery()))
    run.log.extend(entry.event for entry in entries)
    stream = RequestStream("req_1", run.log)
    record = RequestRecord(
        request_id="req_1",
        tenant="",
        trace_id="",
        delivery=Delivery(),
        source="upstream",
        run=run,
        stream=stream,
        created=1.0,
    )
    run.log.changed = 2.0
    return record


@given(actions, sizes, st.data())
def test_responses_surface(told: list[Action], cuts: list[int], data: st.DataObject) -> None:
    """One item after the other; the events are those of the whole response, live and after any number."""
    entries, end = log_of(told)
    whole = record_of(entries)
    encoder = ResponseEventEncoder(whole)
    events = sse(encoder.encode(entries))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    output = response_of(whole)["output"]
    assert events[-1]["response"]["output"] == output
    assert [event["item"] for event in events if event["type"] == "response.output_item.done"] == output
    assert items_from(events) == [_content(item) for item in output]
    shown = [part for part in end.parts if not isinstance(part, VendorPart)]
    shown = [part for part in shown if isinstance(part, ToolCallPart) or part.text]
    kinds = {ToolCallPart: "function_call", ReasoningPart: "reasoning"}
    assert [item["type"] for item in output] == [kinds.get(type(part), "message") for part in shown]
    assert len({item["id"] for item in output}) == len(output)
    growing, live = record_of(()), b""
    reader = ResponseEventEncoder(growing)
    for batch in batches(entries, cuts):
        growing.run.log.extend(entry.event for entry in batch)
        growing.run.log.changed = 2.0
        live += reader.encode(batch)
    assert sse(live) == events
    after = data.draw(st.integers(-1, len(events) - 1))
    assert sse(ResponseEventEncoder(whole, after=after).encode(entries)) == events[after + 1 :]


def items_from(events: list[Any]) -> list[str]:
    """Return the content of each item, as its deltas say it; one item is open at a time."""
    items: list[str] = []
    opened = False
    for event in events:
        kind = event["type"]
        if "output_index" in event:
            assert event["output_index"] == len(items) - (kind != "response.output_item.added")
        if kind == "response.output_item.added":
            assert not opened
            items.append("")
        elif kind.endswith(".delta"):
            assert event["delta"]
            items[-1] += event["delta"]
        opened = opened or kind == "response.output_item.added"
        opened = opened and kind != "response.output_item.done"
    return items


def _content(item: dict[str, Any]) -> str:
    if item["type"] == "function_call":
        return str(item["arguments"])
    part = item["content"][0]
    return str(part["refusal"] if part["type"] == "refusal" else part["text"])


@settings(max_examples=20)
@given(actions)
def test_a_replay_is_equal(told: list[Action]) -> None:
    """A log that was encoded and decoded has the same events and the same end."""
    entries, end = log_of(told)
    events = [entry.event for entry in entries]
    encoded = msgspec.json.encode(events)
    decoded = msgspec.json.decode(encoded, type=list[Event])
    assert decoded == events
    assert isinstance(decoded[-1], Completed)
    assert decoded[-1].parts == end.parts


BROWSER = """
import { readFileSync } from "node:fs";
const { Following } = await import(process.argv[1]);
const link = { call: () => {}, leave: () => {}, restart: () => {}, cancel: () => {} };
const said = JSON.parse(readFileSync(0)).map((frames) => {
  const following = new Following(link, "req_1", { epoch: "k", offset: 0 });
  for (const frame of frames) following.take(frame);
  return { parts: following.parts, text: following.text, toolCalls: following.toolCalls };
});
console.log(JSON.stringify(said));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="runs the browser's client in node")
def test_the_browsers_client(tmp_path: Path) -> None:
    """The client for browsers has the same parts, from single and merged frames, and from a snapshot on."""
    cases: list[list[Any]] = []
    expected: list[Any] = []

    @settings(max_examples=60)
    @given(actions, st.data())
    def collect(told: list[Action], data: st.DataObject) -> None:
        entries, end = log_of(told)
        at = data.draw(st.integers(0, len(entries) - 1))
        log = EventLog(epoch="k")
        log.extend(entry.event for entry in entries[:at])
        late = [snapshot_json("req_1", "k", log.snapshot()), *conflated("req_1", entries[at:])]
        single = [update_json("req_1", entry) for entry in entries]
        cases.extend([[json.loads(frame) for frame in frames] for frames in (single, late)])
        native = json.loads(msgspec.json.encode(core_result(end)))
        expected.extend([{"parts": native["parts"], "text": end.text, "toolCalls": native["toolCalls"]}] * 2)

    collect()
    module = tmp_path / "tidegate.mjs"
    module.write_bytes((WEB / "tidegate.js").read_bytes())
    command = ["node", "--input-type=module", "-e", BROWSER, str(module)]
    ran = subprocess.run(command, input=json.dumps(cases).encode(), capture_output=True, check=False, timeout=60)  # noqa: S603 - our own
    assert ran.returncode == 0, ran.stderr.decode()
    assert json.loads(ran.stdout) == expected
