"""Following one request over a socket: every event once and in order, across reconnects."""

from typing import Final

import msgspec

from protocol.errors import PROBLEMS, RequestCancelled, TidegateError
from protocol.events import Delta, Position, ReasoningDelta, RefusalDelta, ToolCallDelta, VendorBlock
from protocol.hub import Mode
from protocol.llm import AnswerPart, ReasoningPart, Usage
from protocol.parts import PartsBuilder, Piece, pieces_of
from service.client.backoff import Backoff
from service.client.endpoint import ConnectionLost, Endpoint
from service.client.frames import (
    AckData,
    Frame,
    ToolCallPiece,
    UpdateData,
    decode_complete,
    decode_update,
    failure_of,
)
from service.client.subscription import SUBSCRIBE, Subscription

ENDED_STATES: Final = frozenset({"completed", "failed", "cancelled"})


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """New content of the answer.

    Attributes:
        position: the position after this update: ``follow(…, after=position)`` continues from here.
        text: the new text.
        reasoning: the new reasoning of the model, where it shows any.
        tool_calls: pieces of tool calls, in order: the first piece of call ``index`` has its id and name, each one adds
            to its ``arguments``.
        refusal: the new text with which the model refuses to answer.
        pieces: all of this, and the blocks of the vendor's own, piece by piece in the order in which they came.
        replaces: whether this replaces all earlier content.
        partial: the JSON value so far, where the request asks for it and this update has it.
    """

    position: Position
    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallPiece, ...] = ()
    refusal: str = ""
    pieces: tuple[Piece, ...] = ()
    replaces: bool = False
    partial: msgspec.Raw | None = None


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """The answer is complete.

    Attributes:
        position: the position of the end.
        result: the validated JSON where a schema was given, otherwise ``{"text": …, "toolCalls": […], "parts": […]}``.
        finish_reason: why the model stopped.
        usage: tokens.
        reasoning: the model's reasoning, to be sent back to it before the answer's text.
    """

    position: Position
    result: msgspec.Raw
    finish_reason: str
    usage: Usage
    reasoning: tuple[ReasoningPart, ...] = ()


class Following(Subscription[Update | Finished]):
    """An iterator over one request's answer: any number of ``Update``, then one ``Finished``.

    A request that fails or is cancelled raises its error. Closing the iterator leaves the request running.

    Args:
        endpoint: the service.
        request_id: the request.
        after: the exclusive position to begin at; None for the beginning.
        mode: ``snapshot`` begins with all content so far in one update; ``live`` with the next event; ``replay`` yields
            each entry, also after a reconnect, and raises ``UnrecoverablePosition`` for a position of another epoch.
            None for each entry, or a snapshot for such a position.
        first: the backoff until the first connection.
        later: the backoff from then on.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        request_id: str,
        *,
        after: Position | None,
        mode: Mode | None = None,
        first: Backoff,
        later: Backoff,
    ) -> None:
        super().__init__(endpoint, after=after, first=first, later=later)
        self._request_id = request_id
        self._mode = mode
        self._builder = PartsBuilder()

    @property
    def parts(self) -> tuple[AnswerPart, ...]:
        """The answer's parts so far, in order: the content of all updates since the last one that replaces."""
        return self._builder.parts

    def _frames(self) -> tuple[dict[str, object]]:
        subscribe: dict[str, object] = {"type": "subscribe", "id": SUBSCRIBE, "requestId": self._request_id}
        if self.position is not None:
            subscribe["after"] = self.position
        if self._mode is not None:
            subscribe["mode"] = self._mode
        return (subscribe,)

    def _on_ack(self, ack: AckData) -> None:
        ended = ack.state in ENDED_STATES
        if self._mode == "live":
            self.position = Position(ack.epoch, ack.offset - ended)
        elif self.position is None:
            self.position = Position(ack.epoch, 0)
        elif not ack.recovered or self.position.epoch != ack.epoch:
            self.position = Position(ack.epoch, 0)
            self._gap = True
        elif ended and ack.offset <= self.position.offset:
            self._ended = True
        if self._mode != "replay":
            self._mode = None

    def _drop_position(self) -> bool:
        return self._mode != "replay" and super()._drop_position()

    def _on_frame(self, frame: Frame) -> Update | Finished | None:
        if frame.type not in {"update", "complete", "error"} or frame.request_id != self._request_id:
            return None
        position = self.position
        if position is None:
            raise ConnectionLost("a frame came before the acknowledgement")
        if frame.snapshot:
            self._gap = False
            self.position = Position(frame.epoch or position.epoch, frame.offset)
            return self._update(decode_update(frame.data), self.position, replaces=True)
        if frame.offset <= position.offset:
            return None
        first = frame.offset if frame.first is None else frame.first
        if first != position.offset + 1:
            raise ConnectionLost(f"after offset {position.offset} came {first}")
        self.position = Position(position.epoch, frame.offset)
        return self._content(frame, self.position)

    def _content(self, frame: Frame, position: Position) -> Update | Finished:
        if frame.type == "error":
            raise _error_from(frame)
        if frame.type == "complete":
            data = decode_complete(frame.data)
            self._ended = True
            return Finished(
                position=position,
                result=data.core_result,
                finish_reason=data.finish_reason,
                usage=data.usage,
                reasoning=data.reasoning,
            )
        content = decode_update(frame.data)
        replaces = self._gap or (content.attempt_failed is not None and content.attempt_failed.restart)
        self._gap = False
        return self._update(content, position, replaces=replaces)

    def _update(self, content: UpdateData, position: Position, *, replaces: bool) -> Update:
        pieces = _pieces(content) if content.parts is None else pieces_of(content.parts)
        if replaces:
            self._builder = PartsBuilder()
        for piece in pieces:
            self._builder.add(piece)
        return Update(
            position=position,
            text=content.text or content.delta,
            reasoning=content.reasoning,
            tool_calls=_calls(content),
            refusal="".join([piece.text for piece in pieces if isinstance(piece, RefusalDelta)]),
            pieces=tuple(pieces),
            replaces=replaces,
            partial=content.partial or None,
        )


def _calls(content: UpdateData) -> tuple[ToolCallPiece, ...]:
    return content.tool_calls or (() if content.tool_call is None else (content.tool_call,))


def _pieces(content: UpdateData) -> list[Piece]:
    """Return the pieces of an update that is no snapshot, or of one without ``parts``."""
    part, text, vendor = content.part, content.text or content.delta, content.vendor
    pieces: list[Piece] = []
    if content.reasoning or content.signature:
        thought = ReasoningDelta(
            text=content.reasoning, signature=content.signature, redacted=content.redacted, part=part
        )
        pieces.append(thought)
    if text:
        pieces.append(Delta(text=text, part=part))
    if content.refusal:
        pieces.append(RefusalDelta(text=content.refusal, part=part))
    if vendor is not None:
        pieces.append(VendorBlock(dialect=vendor.dialect, value=vendor.value, part=part))
    return pieces + [_call(call, part) for call in _calls(content)]


def _call(call: ToolCallPiece, part: int) -> ToolCallDelta:
    place = part if call.part is None else call.part
    return ToolCallDelta(
        index=call.index, id=call.id, name=call.name, arguments=call.arguments, part=place, extra=call.extra
    )


def _error_from(frame: Frame) -> TidegateError:
    if frame.error.code == RequestCancelled.code:
        return RequestCancelled(frame.error.message or PROBLEMS[RequestCancelled.code].title)
    return failure_of(frame.error)
