"""Bytes on the port that are no request, or an odd one: an answer of our form, one line, and no echo."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.server.refusals import LINES, RefusalLog
from tests.hostile.edge import KEY, LAST, OURS, Edge, check_form, corpus, heads_of, hurry, open_edge

CASES: Final = corpus("http")
HEAD: Final = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
KNOWN: Final = HEAD + f"Authorization: Bearer {OURS}\r\n".encode()
TOKENS: Final = (
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"%", b"/v1/messages", b"\xff", b"\x16\x03\x01", b"0" * 20),
    *(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Expect: x\r\n"),
    *(b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b"Host: a\r\n", b"Content-Encoding: gzip\r\n", b"HTTP/1.0"),
    *(b"x" * 9000, b"GET http://[ HTTP/1.1\r\n", b"OPTIONS * HTTP/1.1\r\n"),
)


@pytest.fixture
async def edge(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Edge]:
    """A service with a key, and with no patience."""
    hurry(monkeypatch)
    async with open_edge(api_keys=(OURS,)) as running:
        yield running


@pytest.mark.parametrize("case", CASES)
async def test_each_is_answered_as_its_name_says(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The status, one line at `info` or none but that of a call, no secret, and the client's bytes nowhere."""
    hurry(monkeypatch)
    async with open_edge(api_keys=(OURS,)) as edge:
        answer = await edge.send(CASES[case])
    assert heads_of(answer)[0][0] == int(case.partition("-")[0])
    check_form(answer)
    assert KEY.encode() not in answer
    edge.check_log(KEY)
    refused = edge.named("http_refused")
    assert len(refused) + len(edge.named("http")) >= 1
    assert {line["level"] for line in refused} <= {"info"}
    assert len(refused) <= 1


@pytest.mark.parametrize(
    ("target", "kind"),
    [("/api/requests", "problem"), ("/v1/chat/completions", "openai"), ("/v1/messages", "anthropic"), ("/", "problem")],
)
@pytest.mark.parametrize("pieces", [1, 2])
async def test_the_form_is_that_of_the_address(edge: Edge, target: str, kind: str, pieces: int) -> None:
    """What can't be parsed is answered in the vendor's form on its addresses, also where it comes in pieces."""
    said = f"POST {target} HTTP/1.1\r\nHost: localhost\r\n", "Content-Length: x\r\n\r\n"
    answer = await edge.send(*(part.encode() for part in (said if pieces > 1 else ("".join(said),))))
    ((status, headers),) = heads_of(answer)
    body = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert (status, headers["connection"]) == (400, "close")
    code = {
        "problem": lambda: body["code"],
        "openai": lambda: body["error"]["code"],
        "anthropic": lambda: body["error"]["details"]["error_code"],
    }[kind]()
    assert code == "malformed_request"
    assert headers["content-type"].startswith("application/problem+json" if kind == "problem" else "application/json")


async def test_a_body_that_breaks_later_fails_its_request(edge: Edge) -> None:
    """The handler that reads it answers, at once, and the connection ends: nothing waits for the rest."""
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.service.port)
    writer.write(KNOWN + b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"5\r\nhello-\r\n")
    answer = await reader.read()
    ((status, headers),) = heads_of(answer)
    assert (status, headers["connection"]) == (400, "close")
    assert b"the body is not encoded as its headers say" in answer
    writer.close()


@pytest.mark.parametrize(
    ("head", "asked"),
    [
        (KNOWN + b"Content-Length: 2\r\n", True),
        (HEAD + b"Content-Length: 2\r\n", False),
        (KNOWN + b"Content-Length: 99999999\r\n", False),
        (KNOWN.replace(b"POST", b"GET") + b"Content-Length: 2\r\n", False),
        (KNOWN.replace(b"/chat/", b"/nothing/") + b"Content-Length: 2\r\n", False),
        (KNOWN.replace(b"json", b"text") + b"Content-Length: 2\r\n", False),
        (KNOWN.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Content-Length: 2\r\n", False),
    ],
)
async def test_a_body_is_asked_for_where_it_is_read(edge: Edge, head: bytes, *, asked: bool) -> None:
    """`100 Continue` comes after the key was checked, and only from a handler that reads; else the connection ends."""
    answer = await edge.send(head + b"Expect: 100-continue\r\n\r\n")
    statuses = [status for status, _ in heads_of(answer)]
    assert statuses[0] == 100 if asked else 100 not in statuses
    assert heads_of(answer)[-1][1].get("connection", "") == ("" if b"HTTP/1.0" in head else "close")
    check_form(answer)


async def test_an_answer_arrives_although_more_is_sent(edge: Edge) -> None:
    """A client that still sends when it is refused reads the answer: the rest of its bytes is dropped for a moment."""
    answer = await edge.send(b"BAD\r\n\r\n", *[b"x" * 65_536] * 20)
    assert [status for status, _ in heads_of(answer)] == [400]


async def test_a_flood_of_garbage_has_few_lines(edge: Edge) -> None:
    """Each one is answered; the log has a burst of lines."""
    for _ in range(3 * LINES):
        assert heads_of(await edge.send(b"\x00\x01\r\n\r\n"))[0][0] == 400
    edge.check_log()
    assert len(edge.named("http_refused")) <= 2 * LINES


def test_lines_that_were_left_out_are_counted() -> None:
    """After a burst one line a second is written, with the number of those before it that were not."""
    now = [0.0]
    log = RefusalLog(lambda: now[0])
    written = [log.take() for _ in range(LINES + 5)]
    assert written == [0] * LINES + [None] * 5
    now[0] = 1.0
    assert [log.take(), log.take()] == [5, None]


edits = st.lists(
    st.tuples(
        st.sampled_from(["insert", "delete", "replace", "repeat"]),
        st.integers(0, 400),
        st.integers(0, 30),
        st.one_of(st.sampled_from(TOKENS), st.binary(max_size=6)),
    ),
    max_size=5,
)


def mutated(data: bytes, changes: list[tuple[str, int, int, bytes]]) -> bytes:
    """Return ``data`` with each change made."""
    for kind, place, size, token in changes:
        at = place % (len(data) + 1)
        end = min(len(data), at + size)
        data = {
            "insert": data[:at] + token + data[at:],
            "delete": data[:at] + data[end:],
            "replace": data[:at] + token + data[end:],
            "repeat": data[:end] + data[at:end] + data[end:],
        }[kind]
    return data


def test_any_bytes_are_answered_or_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutated requests, in one write or in two: each connection ends with answers of our form, or without any."""
    hurry(monkeypatch)
    kept = list(CASES.values())
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        edge = runner.run(stack.enter_async_context(open_edge(api_keys=(OURS,))))

        @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
        @given(st.sampled_from(kept), edits, st.integers(0, 500))
        def sent(data: bytes, changes: list[tuple[str, int, int, bytes]], cut: int) -> None:
            data = mutated(data, changes)
            answer = runner.run(edge.send(data[:cut], data[cut:], b"\r\n\r\n" + LAST))
            check_form(answer)
            assert KEY.encode() not in answer

        sent()
        runner.run(stack.aclose())
    edge.check_log(KEY)
