import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import msgspec
import pytest

import benchmarks.__main__ as command
from actors.testing import Reply, ScriptedUpstream, Stall, refuse
from benchmarks import callgrind, compare, fanout, isolation, runtime
from benchmarks.harness import Comparison, Goal, Plan, Result, Row, Sample, Spread, Word, interleave, ratios, spread
from benchmarks.limits import affordable_sockets
from benchmarks.processes.asking import Asking
from benchmarks.processes.load import Caller, Calls
from benchmarks.processes.sockets import Client, Clients, masked
from benchmarks.processes.ticking import Event, Ticker, framed, paced
from benchmarks.table import number, render
from protocol.routes import Routes


def test_sides_take_turns_after_a_round_that_is_not_recorded() -> None:
    """The order is A B A B, and the first round of each side is not counted."""
    turns: list[str] = []

    def side(name: str) -> Sample:
        turns.append(name)
        return {"n": len(turns)}

    async def a() -> Sample:
        return side("a")

    async def b() -> Sample:
        return side("b")

    figures = asyncio.run(interleave(2, {"a": a, "b": b}))

    assert turns == ["a", "b"] * 3
    assert figures == {"a": {"n": [3, 5]}, "b": {"n": [4, 6]}}


def test_ratios_are_taken_round_by_round() -> None:
    """A machine that is twice as slow in one round does not change the ratio."""
    assert ratios([10.0, 20.0], [5.0, 10.0]) == (2.0, 2.0)
    assert ratios([1.0], [0.0]) == (float("inf"),)
    with pytest.raises(ValueError, match="1 against 2"):
        ratios([1.0], [1.0, 2.0])


def test_a_spread_is_the_median_and_the_ends() -> None:
    """An outlier changes the minimum or maximum and not the median."""
    assert spread([3.0, 100.0, 1.0]) == Spread(median=3.0, low=1.0, high=100.0)


@pytest.mark.parametrize(
    ("word", "expected", "met"),
    [("cost", (2.0, 4.0), False), ("rate", (2.0, 4.0), False), ("cheaper", (0.5, 0.25), True)],
)
def test_a_comparison_puts_the_baseline_first_and_knows_which_way_round(
    word: Word, expected: tuple[float, ...], met: bool
) -> None:
    """``cost`` and ``rate`` are ours over theirs, ``cheaper`` is theirs over ours; the goal is for the median ratio."""
    comparison = Comparison(
        benchmark="b", case="c", metric="m", unit="u", baseline="bare", word=word, goals={"ours": Goal("most", 2.0)}
    )

    first, second = comparison.rows({"ours": {"m": [2.0, 8.0]}, "bare": {"m": [1.0, 2.0]}})

    assert (first.side, first.ratios, first.word, first.met) == ("bare", (), "", None)
    assert (second.side, second.ratios, second.word, second.met) == ("ours", expected, word, met)


def test_a_goal_is_a_bound() -> None:
    """A ratio equal to the goal meets it, and the goal is shown with its direction."""
    assert Goal("least", 1.4).met(1.4)
    assert not Goal("least", 1.4).met(1.39)
    assert Goal("most", 2.0).met(2.0)
    assert [str(Goal("least", 1.4)), str(Goal("most", 2.0))] == [">= 1.4", "<= 2"]


def test_being_quick_is_a_tenth_of_the_work() -> None:
    """A small share of the work is at least one unit."""
    assert (Plan().scaled(500), Plan(quick=True).scaled(500), Plan(quick=True).scaled(3)) == (500, 50, 1)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.00"), (0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (12345.6, "12,346")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    """A figure has three digits: more would suggest a precision that it does not have."""
    assert number(value) == text


def test_the_table_shows_medians_ratios_and_goals() -> None:
    """Each row is a line, with the verdict at its end, and the notes follow below."""
    row = Row(
        benchmark="proxying",
        case="unary",
        side="ours",
        unit="ms",
        values=(1.0, 3.0, 2.0),
        ratios=(1.5, 2.5, 1.75),
        word="cost",
        goal=Goal("most", 2.0),
    )

    lines = render([Result((row,), ("a note",))]).splitlines()

    assert " ".join(lines[2].split()) == "proxying unary ours 2.00 1.00..3.00 ms 1.75x cost 1.50..2.50 <= 2 met"
    assert lines[-1] == "* a note"


def test_the_command_measures_what_it_is_told_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quick run of the runtime benchmark gives every side on both loops, in the table and in the file."""
    monkeypatch.setattr(runtime, "TELLS", 2000)
    monkeypatch.setattr(runtime, "ASKS", 400)
    out = tmp_path / "out.json"

    assert command.main(["runtime", "--quick", "--rounds", "1", "--json", str(out)]) == 0

    rows = json.loads(out.read_bytes())["runtime"]["rows"]
    assert {(row["case"], row["side"]) for row in rows} >= {
        (f"{what}, {loop}", side)
        for what in ("tell", "ask")
        for loop in ("asyncio", "uvloop")
        for side in ("bare queue", "actor")
    }
    assert all(row["median"] > 0 and len(row["values"]) == 1 for row in rows)
    assert "bare queue" in capsys.readouterr().out


def test_the_command_refuses_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the unknown benchmark, and the known ones."""
    with pytest.raises(SystemExit):
        command.main(["nonsense"])
    said = capsys.readouterr().err
    assert "'nonsense'" in said
    assert "fanout" in said


class Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.sent.append(b"closed")


def load(kind: str, count: int, share: int = 1) -> Calls:
    """The calls of one run."""
    return Calls(kind=kind, count=count, share=share, label="run", head=b"POST / HTTP/1.1\r\n")


async def test_a_caller_sends_the_next_call_when_the_answer_is_whole() -> None:
    """An answer in pieces is one answer; a wrong answer is counted; after the last one the connection is closed."""
    calls, wire, done = load("short", 2), Wire(), asyncio.get_running_loop().create_future()
    caller = Caller(calls, done)
    caller.connection_made(wire)

    for piece in (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n", b"\r\ntok", b"en "):
        assert len(wire.sent) == 1
        caller.data_received(piece)
    assert (len(wire.sent), calls.failed) == (2, 0)
    caller.data_received(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")

    assert calls.failed == 1
    assert done.done()
    assert wire.sent[-1] == b"closed"


async def test_a_caller_reads_a_stream_to_its_last_chunk() -> None:
    """A stream counts as complete only with all its words and its end mark."""
    calls, wire, done = load("long", 2), Wire(), asyncio.get_running_loop().create_future()
    caller = Caller(calls, done)
    caller.connection_made(wire)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    caller.data_received(head + b"6\r\ntoken \r\n")
    assert len(wire.sent) == 1
    caller.data_received(b"xx\r\n" + b"token " * 49 + b"data: [DONE]\r\n0\r\n\r\n")
    assert (len(wire.sent), calls.failed) == (2, 0)
    caller.data_received(head + b"6\r\ntoken \r\n0\r\n\r\n")

    assert calls.failed == 1
    await done


def test_calls_are_all_different_unless_they_are_to_be_shared() -> None:
    """Each group of ``share`` consecutive calls is identical."""
    distinct, shared = load("short", 4), load("short", 4, share=2)

    assert len({distinct.next() for _ in range(4)}) == 4
    assert distinct.next() is None
    assert [shared.next() for _ in range(2)] == [load("short", 1).next()] * 2
    assert shared.next() != load("short", 1).next()


async def test_a_client_reads_frames_however_they_are_cut() -> None:
    """Frames of every length, byte by byte: each is counted once, gaps are found, the acknowledgement is separate."""
    loop = asyncio.get_running_loop()
    wire, client = Wire(), Client(b"upgrade", b"subscribe", loop.create_future())
    client.connection_made(wire)
    frames = [b'{"type":"ack","id":1,"data":{"offset":9}}']
    frames += [b'{"offset":%d,"data":"%b"}' % (offset, b"x" * size) for offset, size in ((1, 1), (2, 300), (4, 70_000))]

    for byte in b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + frame(frames[0]):
        client.data_received(bytes((byte,)))
    assert client.ready.done()
    assert wire.sent == [b"upgrade", masked(b"subscribe")]
    arrived = client.wait_for(4)
    rest = b"".join(frame(payload) for payload in frames[1:])
    for start in range(0, len(rest), 1000):
        client.data_received(rest[start : start + 1000])

    await arrived
    assert (client.frames, client.last, client.gaps) == (3, 4, 1)


async def test_a_client_counts_what_stands_for_several_events() -> None:
    """Each line of a message is an event; a merged update and a snapshot leave no gap; a close is recorded."""
    client = Client(b"upgrade", b"subscribe", asyncio.get_running_loop().create_future())
    client.connection_made(Wire())
    client.data_received(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")

    client.data_received(
        frame(b'{"type":"ack","id":1,"data":{"offset":9}}\n{"offset":1,"data":{}}\n{"offset":2,"data":{}}')
    )
    client.data_received(frame(b'{"from":3,"offset":7,"data":{}}'))
    client.data_received(frame(b'{"offset":50,"epoch":"k3","snapshot":true,"data":{}}'))
    assert (client.frames, client.last, client.merged, client.gaps) == (4, 50, 2, 0)
    client.data_received(frame(b'{"from":52,"offset":53,"data":{}}') + b"\x88\x02" + (4008).to_bytes(2))

    assert (client.gaps, client.code) == (1, 4008)


async def test_delays_are_those_of_the_events_that_were_due() -> None:
    """Frames before the first event do not count, and of several events read at once each has its own delay."""
    clients = Clients()
    client = Client(b"", b"", asyncio.get_running_loop().create_future())
    client.arrivals = [(0.5, 1), (10.5, 2), (14.0, 4)]
    clients._clients.append(client)

    delays = await clients.delays(due=[10.0, 11.0, 12.0], lead=1)

    assert (delays["count"], delays["p50"]) == (3, 2.0)
    assert 2.0 < delays["p99"] <= 3.0


async def test_ticks_are_made_when_they_are_due() -> None:
    """Events are numbered through all ticks, and late ticks are sent at once."""
    sent: list[list[object]] = []
    done = asyncio.Event()

    async def send(events: Sequence[Event]) -> None:
        sent.append([event["offset"] for event in events])
        if len(sent) == 3:
            done.set()

    before = time.monotonic()
    start = await Ticker(send).ticks(count=3, events=2, interval=0.0)
    await done.wait()

    assert sent == [[1, 2], [3, 4], [5, 6]]
    assert start > before
    assert [tick async for tick in paced(start - 100.0, 3, 1.0)] == [0, 1, 2]
    assert framed({"offset": 1}) == frame(b'{"offset":1}')


def test_a_fan_out_is_compared_with_the_loop_and_with_broadcast() -> None:
    """Both goals are lines of the table; without ``websockets`` there is only one."""
    figures = {side: {"us": [cost], "p99": [1.0]} for side, cost in (("send_str loop", 28.0), ("websockets", 26.0))}
    figures[fanout.OURS] = {"us": [14.0], "p99": [1.0]}

    rows = fanout._rows(fanout.CASES[0], 1000, figures)
    assert [(row.ratios, row.met) for row in rows if row.goal] == [((2.0,), True), ((26 / 14,), True)]
    del figures["websockets"]
    assert len([row for row in fanout._rows(fanout.CASES[0], 1000, figures) if row.goal]) == 1


def frame(payload: bytes) -> bytes:
    """A server's text frame."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    return (b"\x81\x7e" + size.to_bytes(2) if size < 65_536 else b"\x81\x7f" + size.to_bytes(8)) + payload


def test_every_kind_of_trouble_is_a_provider() -> None:
    """The routes file of the service names each failing provider, and the one that is timed."""
    routes = msgspec.toml.decode(isolation._routes("http://upstream", "http://trouble"), type=Routes)
    assert set(routes.providers) == {"other", *isolation.SIDES.values()}
    assert routes.providers["limiting"].base_url == "http://trouble/limiting/v1"
    assert all(provider.queue == isolation.QUEUE for provider in routes.providers.values())


async def test_a_caller_is_timed_and_another_leaves_when_it_is_told_to() -> None:
    """Percentiles of the timed requests, and the statuses of the others."""
    async with ScriptedUpstream() as upstream, aiohttp.ClientSession() as session:
        asking = Asking(session, f"{upstream.openai_url}/chat/completions")
        timed = await asking.measure("m", count=8, connections=2, pause=0.0)
        assert 0 < timed["p50"] <= timed["p99"]
        upstream.default = Reply(before=(Stall(),))
        upstream.script(refuse(429))
        await asking.press("m", callers=2, pause=0.0)
        await upstream.called(8 + 3)
        assert await asking.release() == {"429": 1}


def test_no_more_sockets_are_wanted_than_there_may_be() -> None:
    """A small number of sockets is within every limit of open files."""
    assert affordable_sockets(3) == 3


def test_a_benchmark_is_compared_with_another_checkout(root: Path) -> None:
    """Each line that both checkouts have is printed twice: the other's figures, then ours with the ratio."""
    result = compare.run("log", Plan(rounds=1, quick=True, against=root))
    other, ours = result.rows[:2]
    assert (other.case, other.side, other.ratios) == (ours.case, f"{ours.side}, other checkout", ())
    assert ours.ratios == (ours.values[0] / other.values[0],)


def test_the_other_checkout_has_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without benchmarks is refused before any measurement."""
    with pytest.raises(SystemExit):
        command.main(["log", "--against", str(tmp_path)])
    assert "--against must be a checkout of the project" in capsys.readouterr().err


def test_without_valgrind_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark names the missing program instead of failing."""
    monkeypatch.setenv("PATH", "")
    assert callgrind.run(Plan()) == Result((), (callgrind.MISSING,))
