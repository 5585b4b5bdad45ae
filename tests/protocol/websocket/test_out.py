import json
from typing import Any

import msgspec

from protocol.errors import FieldError, InvalidRequest, NotFound, Overloaded, UnrecoverablePosition
from protocol.events import (
    AttemptFailed,
    Cancelled,
    Completed,
    Delta,
    Entry,
    Event,
    Failed,
    Position,
    ReasoningDelta,
    RefusalDelta,
    Snapshot,
    Started,
    ToolCallDelta,
    VendorBlock,
)
from protocol.llm import ReasoningPart, TextPart, ToolCallPart, Usage
from protocol.websocket.out import (
    ack_json,
    conflated,
    disconnect_json,
    error_json,
    frame_type,
    pong_json,
    snapshot_json,
    tail,
    update_json,
)


def shown(offset: int, event: Event) -> Any:  # noqa: ANN401 - decoded JSON
    """Return what a client decodes of an entry."""
    return json.loads(update_json("req_1", Entry(offset, event)))


def test_updates_look_as_documented() -> None:
    """Each event has a frame, so that a client sees contiguous offsets."""
    assert shown(1, Started(model="default", created=0)) == {
        "type": "update",
        "requestId": "req_1",
        "offset": 1,
        "data": {"state": "running", "model": "default"},
    }
    assert shown(42, Delta("Hel")) == {"type": "update", "requestId": "req_1", "offset": 42, "data": {"delta": "Hel"}}
    assert shown(43, ToolCallDelta(index=0, id="c", name="find", arguments="{"))["data"] == {
        "toolCall": {"index": 0, "id": "c", "name": "find", "arguments": "{"},
        "part": 0,
    }
    assert shown(44, ToolCallDelta(index=0, arguments="}", part=1))["data"] == {
        "toolCall": {"index": 0, "arguments": "}"},
        "part": 1,
    }
    assert shown(45, AttemptFailed(provider="p", model="m", code="provider_error", restart=True))["data"] == {
        "attemptFailed": {"provider": "p", "model": "m", "code": "provider_error", "restart": True}
    }


def test_reasoning_looks_as_documented() -> None:
    """Reasoning has updates of its own with its signatures, and ``complete`` has its parts."""
    assert shown(2, ReasoningDelta(text="hm"))["data"] == {"reasoning": "hm", "part": 0}
    entries = [Entry(2, ReasoningDelta(text="h")), Entry(3, ReasoningDelta(text="m")), Entry(4, Delta("Hi", part=1))]
    first, second = (json.loads(frame) for frame in conflated("req_1", entries))
    assert (first["from"], first["offset"], first["data"]) == (2, 3, {"reasoning": "hm", "part": 0})
    assert (second["offset"], second["data"]) == (4, {"delta": "Hi", "part": 1})
    signed = shown(5, ReasoningDelta(signature="s", redacted=True, part=2))
    assert signed["data"] == {"reasoning": "", "signature": "s", "redacted": True, "part": 2}
    parts = (ReasoningPart(text="hm", signature="s"), TextPart(text="Hi"))
    merged = json.loads(snapshot_json("req_1", "k4", Snapshot(offset=4, parts=parts)))
    wire = [{"type": "reasoning", "text": "hm", "signature": "s"}, {"type": "text", "text": "Hi"}]
    assert merged["data"] == {"reasoning": "hm", "text": "Hi", "parts": wire}
    end = shown(5, Completed(parts=parts))
    assert (end["data"]["reasoning"], end["data"]["coreResult"]["parts"]) == (wire[:1], wire)


def test_refusals_and_vendors_blocks_look_as_documented() -> None:
    """Both have updates of their own, with the part; an unknown finish reason has the provider's word beside it."""
    assert shown(2, RefusalDelta(text="no", part=1))["data"] == {"refusal": "no", "part": 1}
    block = VendorBlock(dialect="anthropic", value=msgspec.Raw(b'{"type": "x"}'), part=2)
    assert shown(3, block)["data"] == {"vendor": {"dialect": "anthropic", "value": {"type": "x"}}, "part": 2}
    end = shown(4, Completed(finish_reason="other", raw_finish_reason="vendor_done"))["data"]
    assert (end["finishReason"], end["rawFinishReason"]) == ("other", "vendor_done")


def test_ends_look_as_documented() -> None:
    """A log ends with a ``complete`` or a terminal ``error``, also for a cancelled request."""
    assert shown(64, Completed(result=msgspec.Raw(b'{"text":"x"}'), usage=Usage(input_tokens=3))) == {
        "type": "complete",
        "requestId": "req_1",
        "offset": 64,
        "data": {
            "coreResult": {"text": "x"},
            "finishReason": "stop",
            "usage": {"inputTokens": 3, "outputTokens": 0, "cachedInputTokens": 0, "reasoningTokens": 0},
        },
    }
    failed = shown(64, Failed(code="provider_rate_limited", message="Slow", temporary=True, retry_after_ms=1500))
    assert (
        failed.pop("error").items()
        >= {
            "code": "provider_rate_limited",
            "message": "Slow",
            "temporary": True,
            "retryAfterMs": 1500,
        }.items()
    )
    assert failed == {"type": "error", "requestId": "req_1", "offset": 64, "terminal": True}
    cancelled = shown(7, Cancelled())
    assert (cancelled["error"]["code"], cancelled["error"]["temporary"]) == ("cancelled", False)
    assert cancelled["terminal"] is True
    assert shown(7, Cancelled("abandoned"))["error"]["message"].endswith(": abandoned")


def test_an_entry_is_encoded_once() -> None:
    """All requests and readers of a log share one tail."""
    entry = Entry(5, Delta("x"))
    update_json("req_1", entry)
    assert entry.frames is not None
    built = entry.frames["native"]
    update_json("req_2", entry)
    assert entry.frames["native"] is built
    assert entry.frame("native", tail) is built
    assert [frame_type(event) for event in (entry.event, Failed(code="x", message=""), Cancelled())] == [
        "update",
        "error",
        "error",
    ]


def test_consecutive_deltas_are_merged() -> None:
    """A reader that is behind gets one update for consecutive deltas of a part, and of calls, in their order."""
    entries = [
        Entry(43, Delta("lo, ")),
        Entry(44, Delta("world")),
        Entry(45, ToolCallDelta(index=0, id="c", name="find", arguments="{", part=1)),
        Entry(46, ToolCallDelta(index=1, id="d", name="see", part=2)),
        Entry(47, ToolCallDelta(index=0, arguments="}", part=1)),
        Entry(48, Delta("so", part=3)),
        Entry(49, Delta("!", part=4)),
    ]
    frames = [json.loads(frame) for frame in conflated("req_1", entries)]
    assert [(frame.get("from"), frame["offset"], frame["data"]) for frame in frames] == [
        (43, 44, {"delta": "lo, world"}),
        (
            45,
            47,
            {
                "toolCalls": [
                    {"index": 0, "id": "c", "name": "find", "arguments": "{}", "part": 1},
                    {"index": 1, "id": "d", "name": "see", "arguments": "", "part": 2},
                ]
            },
        ),
        (None, 48, {"delta": "so", "part": 3}),
        (None, 49, {"delta": "!", "part": 4}),
    ]


def test_boundaries_are_not_merged() -> None:
    """The start, a boundary and the end stay frames of their own; a single delta is not merged."""
    entries = [
        Entry(1, Started(model="m", created=0)),
        Entry(2, Delta("a")),
        Entry(3, AttemptFailed(provider="p", model="m", code="provider_error")),
        Entry(4, Delta("b")),
        Entry(5, Delta("c")),
        Entry(6, Cancelled()),
    ]
    frames = [json.loads(frame) for frame in conflated("req_1", entries)]
    assert [(frame.get("from"), frame["offset"]) for frame in frames] == [
        (None, 1),
        (None, 2),
        (None, 3),
        (4, 5),
        (None, 6),
    ]
    assert conflated("req_1", []) == []


def test_a_restart_replaces_the_void_content() -> None:
    """The frame of a restart covers the offsets of the void content, which is not sent."""
    entries = [
        Entry(2, Delta("void")),
        Entry(3, Delta("too")),
        Entry(4, AttemptFailed(provider="p", model="m", code="provider_error", restart=True)),
        Entry(5, Delta("new")),
    ]
    first, second = (json.loads(frame) for frame in conflated("req_1", entries))
    assert (first["from"], first["offset"], first["data"]["attemptFailed"]["restart"]) == (2, 4, True)
    assert (second["offset"], second["data"]) == (5, {"delta": "new"})


def test_a_snapshot_looks_as_documented() -> None:
    """A snapshot has the epoch, because it replaces all content of its reader."""
    assert json.loads(snapshot_json("req_1", "k4", Snapshot(offset=63, parts=(TextPart(text="…"),)))) == {
        "type": "update",
        "requestId": "req_1",
        "offset": 63,
        "epoch": "k4",
        "snapshot": True,
        "data": {"text": "…", "parts": [{"type": "text", "text": "…"}]},
    }
    calls = (ToolCallPart(id="c", name="find", arguments="{}"),)
    with_calls = json.loads(snapshot_json("req_1", "k4", Snapshot(offset=63, parts=calls)))
    assert with_calls["data"] == {
        "text": "",
        "toolCalls": [{"index": 0, "id": "c", "name": "find", "arguments": "{}"}],
        "parts": [{"type": "tool_call", "id": "c", "name": "find", "arguments": "{}"}],
    }


def test_the_other_frames_look_as_documented() -> None:
    """Acknowledgement, refusal, pong and disconnect."""
    assert json.loads(ack_json(3, "req_1", Position("k3", 63), "running")) == {
        "type": "ack",
        "id": 3,
        "requestId": "req_1",
        "data": {"epoch": "k3", "offset": 63, "state": "running", "recovered": True},
    }
    refusal = json.loads(error_json(UnrecoverablePosition("gone"), frame_id=3))
    assert (
        refusal.pop("error").items()
        >= {
            "code": "unrecoverable_position",
            "message": "gone",
            "temporary": False,
        }.items()
    )
    assert refusal == {"type": "error", "id": 3}
    assert json.loads(pong_json()) == {"type": "pong"}
    assert json.loads(pong_json("a")) == {"type": "pong", "id": "a"}
    assert json.loads(disconnect_json("shutdown", 8.0)) == {
        "type": "disconnect",
        "data": {"code": 4001, "reason": "shutdown", "reconnect": True, "delayMs": 8000},
    }


def test_a_refusal_has_its_remedy() -> None:
    """A refusal has a remedy, the wait and the invalid fields; without a frame id it has the request's id."""
    refusal = json.loads(error_json(NotFound(code="request_not_found"), request_id="req_1"))
    assert (refusal["requestId"], refusal["error"]["remedy"] != "") == ("req_1", True)
    assert json.loads(error_json(Overloaded(retry_after=2.5)))["error"]["retryAfterMs"] == 2500
    refusal = json.loads(error_json(Overloaded(retry_after=2.5), channel="room:7", terminal=True))
    assert (refusal["channel"], refusal["terminal"], refusal["error"]["retryAfterMs"]) == ("room:7", True, 2500)
    error = InvalidRequest("bad", errors=[FieldError("$.after", "what is that")])
    assert json.loads(error_json(error))["error"]["errors"] == [{"path": "$.after", "message": "what is that"}]
