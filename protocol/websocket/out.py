"""JSON of the frames that the server sends over ``GET /ws``.

An entry's JSON has a head with the request's id, and a *tail* that is the same for every request and reader of the log.
The tail is built once, stored in the entry, and shared with the SSE stream.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Final, Literal

import msgspec

from protocol.answer import core_result, native_parts
from protocol.errors import PROBLEMS, FieldError, TidegateError
from protocol.events import (
    AttemptFailed,
    Cancelled,
    Completed,
    Content,
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
from protocol.identity import Principal
from protocol.llm import Extra, Vendor
from protocol.parts import Piece, merged_fields
from protocol.requests import Status
from protocol.secret_text import hide_in

SUBPROTOCOL: Final = "tidegate.v1"
DIALECT: Final = "native"  # the key of the tail in ``Entry.frames``

FrameType = Literal["update", "complete", "error"]

_encode: Final = msgspec.json.Encoder().encode


class _Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of the parts of a frame: unset fields are left out."""


class _ToolCall(_Wire, frozen=True):
    index: int
    id: str | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType = msgspec.UNSET
    arguments: str = ""
    extra: Extra | msgspec.UnsetType = msgspec.UNSET
    part: int | msgspec.UnsetType = msgspec.UNSET


class _Update(_Wire, frozen=True):
    """New content of one part, or of several tool calls."""

    delta: str | msgspec.UnsetType = msgspec.UNSET
    reasoning: str | msgspec.UnsetType = msgspec.UNSET
    signature: str | msgspec.UnsetType = msgspec.UNSET
    redacted: bool | msgspec.UnsetType = msgspec.UNSET
    tool_call: _ToolCall | msgspec.UnsetType = msgspec.UNSET
    tool_calls: tuple[_ToolCall, ...] | msgspec.UnsetType = msgspec.UNSET
    refusal: str | msgspec.UnsetType = msgspec.UNSET
    vendor: "_Vendor | msgspec.UnsetType" = msgspec.UNSET
    part: int | msgspec.UnsetType = msgspec.UNSET


class _Vendor(_Wire, frozen=True):
    dialect: Vendor
    value: msgspec.Raw


class _Snapshot(_Wire, frozen=True):
    text: str
    reasoning: str | msgspec.UnsetType = msgspec.UNSET
    tool_calls: tuple[_ToolCall, ...] | msgspec.UnsetType = msgspec.UNSET
    parts: tuple[Any, ...] = ()


class _Error(_Wire, frozen=True):
    code: str
    message: str
    temporary: bool
    remedy: str
    retry_after_ms: int | msgspec.UnsetType = msgspec.UNSET
    errors: tuple[FieldError, ...] | msgspec.UnsetType = msgspec.UNSET


def frame_type(event: Event) -> FrameType:
    """Return the frame type of ``event``, which is the event's name on SSE."""
    if isinstance(event, Completed):
        return "complete"
    return "error" if isinstance(event, Failed | Cancelled) else "update"


def tail(entry: Entry) -> bytes:
    """Return the rest of an entry's JSON after ``requestId``, with the closing brace."""
    event = entry.event
    if isinstance(event, Failed | Cancelled):
        return b'"offset":%d,"error":%b,"terminal":true}' % (entry.offset, _encode(_terminal_error(event)))
    return b'"offset":%d,"data":%b}' % (entry.offset, _content(event))


def update_json(request_id: str, entry: Entry) -> bytes:
    """Return the JSON of an entry: an ``update``, a ``complete``, or a terminal ``error``."""
    return _head(frame_type(entry.event), request_id) + entry.frame(DIALECT, tail)


def conflated(request_id: str, entries: Iterable[Entry]) -> list[bytes]:
    """Return the frames of ``entries`` with deltas merged, for a reader that is behind.

    Consecutive deltas of one part, and those of any tool calls, become one ``update`` with ``from`` and ``offset``;
    other entries stay frames of their own. So the frames have the order of the parts. A restart voids the content
    before it, so it replaces that content's frames, and its ``from`` is their first offset.
    """
    frames: list[bytes] = []
    run: list[Entry] = []
    for entry in entries:
        event = entry.event
        if isinstance(event, Piece):
            run.append(entry)
        elif run and isinstance(event, AttemptFailed) and event.restart:
            frames.append(_spanning(request_id, run[0].offset, entry.offset, _content(event)))
            run.clear()
        else:
            _merge_into(frames, request_id, run)
            frames.append(update_json(request_id, entry))
            run.clear()
    _merge_into(frames, request_id, run)
    return frames


def snapshot_json(request_id: str, epoch: str, snapshot: Snapshot) -> bytes:
    """Return the JSON of a snapshot: an ``update`` that replaces all content that the reader has of the request."""
    calls = tuple(
        _ToolCall(index=index, id=call.id, name=call.name, arguments=call.arguments)
        for index, call in enumerate(snapshot.tool_calls)
    )
    data = _Snapshot(
        text=snapshot.text,
        reasoning=snapshot.reasoning or msgspec.UNSET,
        tool_calls=calls or msgspec.UNSET,
        parts=native_parts(snapshot.parts),
    )
    return b'%b"offset":%d,"epoch":%b,"snapshot":true,"data":%b}' % (
        _head("update", request_id),
        snapshot.offset,
        _encode(epoch),
        _encode(data),
    )


def with_partial(frame: bytes, partial: bytes) -> bytes:
    """Return the JSON of an ``update`` with ``partial`` added: the JSON value of the text so far."""
    return b'%b,"partial":%b}}' % (frame[:-2], partial)


def ack_json(
    frame_id: int | str,
    request_id: str,
    position: Position | None = None,
    state: Status = "running",
    *,
    recovered: bool = True,
) -> bytes:
    """Return the JSON of an acknowledgement: the log's position, and whether the position asked for was recovered.

    Without a position it acknowledges only the frame.
    """
    frame: dict[str, object] = {"type": "ack", "id": frame_id, "requestId": request_id}
    if position is not None:
        frame["data"] = {
            "epoch": position.epoch,
            "offset": position.offset,
            "state": state,
            "recovered": recovered,
        }
    return _encode(frame)


def authenticated_json(frame_id: int | str, principal: Principal) -> bytes:
    """Return the JSON of the acknowledgement of ``authenticate``: the user, and the expiry in Unix milliseconds."""
    data: dict[str, object] = {"user": principal.subject}
    if principal.expires is not None:
        data["expiresAt"] = round(principal.expires * 1000)
    return _encode({"type": "ack", "id": frame_id, "data": data})


def error_json(
    error: TidegateError,
    *,
    frame_id: int | str | None = None,
    request_id: str = "",
    channel: str = "",
    terminal: bool = False,
) -> bytes:
    """Return the JSON of a refusal, with the id of the frame and of the request or the name of the channel.

    With ``terminal`` it also ends the subscription to the channel.
    """
    hide_in(error)
    frame: dict[str, object] = {"type": "error"}
    if frame_id is not None:
        frame["id"] = frame_id
    if request_id:
        frame["requestId"] = request_id
    if channel:
        frame["channel"] = channel
    problem = error.problem
    frame["error"] = _Error(
        code=error.code,
        message=error.detail,
        temporary=problem.temporary,
        remedy=problem.remedy,
        retry_after_ms=msgspec.UNSET if error.retry_after is None else round(error.retry_after * 1000),
        errors=error.errors or msgspec.UNSET,
    )
    if terminal:
        frame["terminal"] = True
    return _encode(frame)


def pong_json(frame_id: int | str | None = None) -> bytes:
    """Return the JSON of the answer to a ping."""
    return b'{"type":"pong"}' if frame_id is None else b'{"type":"pong","id":%b}' % _encode(frame_id)


def disconnect_json(reason: str, delay: float, *, code: int = 4001, reconnect: bool = True) -> bytes:
    """Return the JSON of the ``disconnect`` frame: whether to reconnect, and after ``delay`` seconds."""
    data = {"code": code, "reason": reason, "reconnect": reconnect, "delayMs": round(delay * 1000)}
    return _encode({"type": "disconnect", "data": data})


def _head(kind: FrameType, request_id: str) -> bytes:
    return b'{"type":"%b","requestId":%b,' % (kind.encode(), _encode(request_id))


def _content(event: Started | Content | Completed) -> bytes:
    if isinstance(event, Delta):
        if event.part:
            return b'{"delta":%b,"part":%d}' % (_encode(event.text), event.part)
        return b'{"delta":%b}' % _encode(event.text)
    if isinstance(event, Piece):
        return _encode(_update([event]))
    if isinstance(event, Completed):
        return _encode(_completed(event))
    if isinstance(event, AttemptFailed):
        failed = {"provider": event.provider, "model": event.model, "code": event.code, "restart": event.restart}
        return _encode({"attemptFailed": failed})
    return _encode({"state": "running", "model": event.model})


def _completed(event: Completed) -> dict[str, Any]:
    end: dict[str, Any] = {"coreResult": core_result(event), "finishReason": event.finish_reason, "usage": event.usage}
    if event.raw_finish_reason:
        end["rawFinishReason"] = event.raw_finish_reason
    thoughts = event.thoughts
    return {**end, "reasoning": thoughts} if thoughts else end


def _terminal_error(event: Failed | Cancelled) -> _Error:
    if isinstance(event, Cancelled):
        problem = PROBLEMS["cancelled"]
        message = problem.title if event.reason == "cancelled" else f"{problem.title}: {event.reason}"
        return _Error(code="cancelled", message=message, temporary=False, remedy=problem.remedy)
    return _Error(
        code=event.code,
        message=event.message,
        temporary=event.temporary,
        remedy=(PROBLEMS.get(event.code) or PROBLEMS["internal_error"]).remedy,
        retry_after_ms=msgspec.UNSET if event.retry_after_ms is None else event.retry_after_ms,
        errors=event.errors or msgspec.UNSET,
    )


def _merge_into(frames: list[bytes], request_id: str, entries: Sequence[Entry]) -> None:
    """Append the frames of ``entries``, which are all content: one for each run of entries that can be merged."""
    for _, group in groupby(entries, _run_of):
        run = list(group)
        if len(run) == 1:
            frames.append(update_json(request_id, run[0]))
        else:
            update = _update([entry.event for entry in run if isinstance(entry.event, Piece)])
            frames.append(_spanning(request_id, run[0].offset, run[-1].offset, _encode(update)))


def _run_of(entry: Entry) -> tuple[type[Event], int]:
    """Return what consecutive entries have in common that can be merged: the part, and of tool calls the kind."""
    event = entry.event
    if isinstance(event, VendorBlock):
        return VendorBlock, entry.offset
    if isinstance(event, ReasoningDelta) and event.signature:
        return ReasoningDelta, -entry.offset
    return type(event), event.part if isinstance(event, Delta | ReasoningDelta | RefusalDelta) else 0


def _update(pieces: Sequence[Piece]) -> _Update:
    """Return the update of pieces that can be merged."""
    first = pieces[0]
    if isinstance(first, ToolCallDelta):
        return _calls_update([piece for piece in pieces if isinstance(piece, ToolCallDelta)])
    if isinstance(first, VendorBlock):
        return _Update(vendor=_Vendor(dialect=first.dialect, value=first.value), part=first.part)
    text = "".join([piece.text for piece in pieces if isinstance(piece, Delta | ReasoningDelta | RefusalDelta)])
    if isinstance(first, Delta):
        return _Update(delta=text, part=first.part or msgspec.UNSET)
    if isinstance(first, RefusalDelta):
        return _Update(refusal=text, part=first.part)
    return _Update(
        reasoning=text,
        signature=first.signature or msgspec.UNSET,
        redacted=first.redacted or msgspec.UNSET,
        part=first.part,
    )


def _calls_update(pieces: Sequence[ToolCallDelta]) -> _Update:
    calls: dict[int, list[ToolCallDelta]] = {}
    for piece in pieces:
        calls.setdefault(piece.index, []).append(piece)
    if len(pieces) == 1:
        return _Update(tool_call=_tool_call(pieces), part=pieces[0].part)
    merged = [msgspec.structs.replace(_tool_call(call), part=call[0].part) for call in calls.values()]
    return _Update(tool_calls=tuple(merged))


def _tool_call(pieces: Sequence[ToolCallDelta]) -> _ToolCall:
    extra: Extra = {}
    for piece in pieces:
        extra = merged_fields(extra, piece.extra) if piece.extra else extra
    return _ToolCall(
        index=pieces[0].index,
        id=next((piece.id for piece in pieces if piece.id), msgspec.UNSET),
        name=next((piece.name for piece in pieces if piece.name), msgspec.UNSET),
        arguments="".join([piece.arguments for piece in pieces]),
        extra=extra or msgspec.UNSET,
    )


def _spanning(request_id: str, first: int, last: int, content: bytes) -> bytes:
    return b'%b"from":%d,"offset":%d,"data":%b}' % (_head("update", request_id), first, last, content)
