"""Following one request over the socket: leaving out nothing and repeating nothing, however often it is cut off."""

from typing import Final

import msgspec

from protocol.errors import PROBLEMS, RequestCancelled, TidegateError
from protocol.events import Position
from protocol.hub import Mode
from protocol.llm import ReasoningPart, Usage
from service.client.backoff import Backoff
from service.client.endpoint import Endpoint, LostError
from service.client.frames import (
    Acknowledged,
    Content,
    Frame,
    Piece,
    decode_content,
    decode_whole,
    failure_of,
)
from service.client.subscription import SUBSCRIBE, Subscription

_OVER: Final = frozenset({"completed", "failed", "cancelled"})


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """Something new of the answer.

    Attributes:
        position: where this leads to: ``follow(…, after=position)`` goes on from here.
        text: the text that is new.
        reasoning: what is new of the model's reasoning, where it shows any.
        tool_calls: pieces of tool calls, in order: the first piece of call ``index`` has its id and name, each one adds
            to its ``arguments``.
        replaces: whether these three take the place of all there was so far.
        partial: the JSON value so far, where the request asks for it and this update has it.
    """

    position: Position
    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[Piece, ...] = ()
    replaces: bool = False
    partial: msgspec.Raw | None = None


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """The answer is whole.

    Attributes:
        position: of the end.
        result: the validated JSON where a schema was given, otherwise ``{"text": …, "toolCalls": […]}``.
        finish_reason: why the model stopped.
        usage: tokens.
        reasoning: what the model thought, to be given back to it in front of the answer's text.
    """

    position: Position
    result: msgspec.Raw
    finish_reason: str
    usage: Usage
    reasoning: tuple[ReasoningPart, ...] = ()


class Following(Subscription[Update | Finished]):
    """One request's answer, to iterate over: any number of ``Update``, then one ``Finished``.

    A request that does not become whole raises what ended it. Leaving it leaves the request running.

    Args:
        endpoint: where the service is.
        request_id: what is followed.
        after: the exclusive position to begin at; None for the beginning.
        mode: how to begin: with one ``snapshot`` of all so far, or ``live``, with what comes; or ``replay``, each entry
            by itself, also later on, which raises ``UnrecoverablePosition`` for a position of another epoch. None for
            each entry, or a snapshot for such a position.
        first: waits until the first connection.
        later: waits from then on.
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

    def _frames(self) -> tuple[dict[str, object]]:
        subscribe: dict[str, object] = {"type": "subscribe", "id": SUBSCRIBE, "requestId": self._request_id}
        if self.position is not None:
            subscribe["after"] = self.position
        if self._mode is not None:
            subscribe["mode"] = self._mode
        return (subscribe,)

    def _acknowledged(self, ack: Acknowledged) -> None:
        over = ack.state in _OVER
        if self._mode == "live":
            self.position = Position(ack.epoch, ack.offset - over)
        elif self.position is None:
            self.position = Position(ack.epoch, 0)
        elif not ack.recovered or self.position.epoch != ack.epoch:
            self.position = Position(ack.epoch, 0)
            self._torn = True
        elif over and ack.offset <= self.position.offset:
            self._ended = True
        if self._mode != "replay":
            self._mode = None

    def _forget(self) -> bool:
        return self._mode != "replay" and super()._forget()

    def _heard(self, frame: Frame) -> Update | Finished | None:
        if frame.type not in {"update", "complete", "error"} or frame.request_id != self._request_id:
            return None
        position = self.position
        if position is None:
            raise LostError("a frame came before the acknowledgement")
        if frame.snapshot:
            self._torn = False
            self.position = Position(frame.epoch or position.epoch, frame.offset)
            return _update(decode_content(frame.data), self.position, replaces=True)
        if frame.offset <= position.offset:
            return None
        first = frame.offset if frame.first is None else frame.first
        if first != position.offset + 1:
            raise LostError(f"after offset {position.offset} came {first}")
        self.position = Position(position.epoch, frame.offset)
        return self._content(frame, self.position)

    def _content(self, frame: Frame, position: Position) -> Update | Finished:
        if frame.type == "error":
            raise _ended_by(frame)
        if frame.type == "complete":
            whole = decode_whole(frame.data)
            self._ended = True
            return Finished(
                position=position,
                result=whole.core_result,
                finish_reason=whole.finish_reason,
                usage=whole.usage,
                reasoning=whole.reasoning,
            )
        content = decode_content(frame.data)
        replaces = self._torn or (content.attempt_failed is not None and content.attempt_failed.restart)
        self._torn = False
        return _update(content, position, replaces=replaces)


def _update(content: Content, position: Position, *, replaces: bool) -> Update:
    return Update(
        position=position,
        text=content.text or content.delta,
        reasoning=content.reasoning,
        tool_calls=content.tool_calls or (() if content.tool_call is None else (content.tool_call,)),
        replaces=replaces,
        partial=content.partial or None,
    )


def _ended_by(frame: Frame) -> TidegateError:
    if frame.error.code == RequestCancelled.code:
        return RequestCancelled(frame.error.message or PROBLEMS[RequestCancelled.code].title)
    return failure_of(frame.error)
