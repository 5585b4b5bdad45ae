"""What a log is made of: events, the entries that carry them, and the interface by which a log is read.

A log is append-only. Its entries carry contiguous offsets from 1 within one *epoch*, and end with exactly one terminal
event: ``Completed``, ``Failed`` or ``Cancelled``.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

import msgspec

from protocol.errors import FieldError, InvalidRequest
from protocol.llm import FinishReason, ReasoningPart, ToolCall, Usage


class _Event(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="type", omit_defaults=True):
    """Anything that a log can hold.

    Attributes:
        terminal: whether it ends a log.
    """

    terminal: ClassVar[bool] = False

    def size(self) -> int:
        """Return how many bytes its texts take in UTF-8."""
        return 0


class Started(_Event, frozen=True, tag="started"):
    """The log is open: always the entry at offset 1.

    Attributes:
        model: the model as the caller named it.
        created: Unix time in seconds.
    """

    model: str
    created: int

    def size(self) -> int:  # noqa: D102 - the contract is the base's
        return _length(self.model)


class Delta(_Event, frozen=True, tag="delta"):
    """A piece of the answer's text.

    Attributes:
        text: the piece.
        logprobs: what OpenAI's dialect says of its tokens' probabilities, a JSON array; empty where nobody has asked.
    """

    text: str
    logprobs: str = ""

    def size(self) -> int:  # noqa: D102 - the contract is the base's
        text = self.text
        return (len(text) if text.isascii() else _length(text)) + len(self.logprobs)


class ReasoningDelta(_Event, frozen=True, tag="reasoning"):
    """A piece of the model's reasoning; one with a ``signature`` is the last piece of its thought.

    Attributes:
        text: the piece.
        signature: as ``llm.ReasoningPart`` has it.
        redacted: as ``llm.ReasoningPart`` has it; such a thought has this one piece.
    """

    text: str = ""
    signature: str = ""
    redacted: bool = False

    def size(self) -> int:  # noqa: D102 - the contract is the base's
        return _length(self.text) + _length(self.signature)


class ToolCallDelta(_Event, frozen=True, tag="tool_call"):
    """A piece of a tool call: the first piece of call ``index`` has its id and name, each one adds to ``arguments``."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""

    def size(self) -> int:  # noqa: D102 - the contract is the base's
        return _length(self.arguments) + _length(self.name) + _length(self.id)


class AttemptFailed(_Event, frozen=True, tag="attempt_failed"):
    """A boundary: the call that gave the content so far broke off, or its whole answer did not match the schema.

    Attributes:
        provider: whose call it was.
        model: that provider's name of the model.
        code: the failure's code.
        restart: whether the answer starts anew after this entry; what came before it is then void.
    """

    provider: str
    model: str
    code: str
    restart: bool = False


class Completed(_Event, frozen=True, tag="completed"):
    """The end of an answer that is whole.

    Attributes:
        result: the validated JSON where a schema was given, otherwise ``{"text": …, "toolCalls": […]}``.
        finish_reason: why the model stopped.
        usage: tokens of all the request's attempts.
        provider: who answered.
        model: the provider's own name of the model.
        reasoning: what the model thought, thought by thought.
        logprobs: of all the text, as ``Delta`` has them.
        stop_sequence: the text at which the model stopped; empty for none, and where its side does not say which.
    """

    terminal = True

    result: msgspec.Raw
    finish_reason: FinishReason = "stop"
    usage: Usage = Usage()
    provider: str = ""
    model: str = ""
    reasoning: tuple[ReasoningPart, ...] = ()
    logprobs: str = ""
    stop_sequence: str = ""

    def size(self) -> int:  # noqa: D102 - the contract is the base's
        size = len(memoryview(self.result)) + len(self.logprobs)
        for thought in self.reasoning:
            size += _length(thought.text) + _length(thought.signature)
        return size


class Failed(_Event, frozen=True, tag="failed"):
    """The end of an answer that will not become whole; ``code`` is a row of ``errors.PROBLEMS``."""

    terminal = True

    code: str
    message: str
    temporary: bool = False
    retry_after_ms: int | None = None
    errors: tuple[FieldError, ...] = ()

    def size(self) -> int:  # noqa: D102 - the contract is the base's
        return _length(self.message)


class Cancelled(_Event, frozen=True, tag="cancelled"):
    """The end of an answer that nobody wants any more."""

    terminal = True

    reason: str = "cancelled"


Content = Delta | ReasoningDelta | ToolCallDelta | AttemptFailed
Terminal = Completed | Failed | Cancelled
Event = Started | Content | Terminal


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


class Position(msgspec.Struct, frozen=True):
    """Where a reader is: an offset within an epoch, one atomic value. On one line it is ``epoch:offset``."""

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Read ``epoch:offset``.

        Raises:
            InvalidRequest: ``invalid_position``, where the text is anything else.
        """
        epoch, colon, offset = text.rpartition(":")
        if not colon or not epoch or not (offset.isascii() and offset.isdigit()) or len(offset) > _OFFSET_DIGITS:
            message = f"a position is `epoch:offset`, got {text[:80]!r}"
            raise InvalidRequest(message, code="invalid_position")
        return cls(epoch, int(offset))


_OFFSET_DIGITS = 15


class Entry(msgspec.Struct, eq=False):
    """An event at its offset.

    Attributes:
        offset: its place in the log, from 1.
        event: what has happened.
        frames: its wire forms by dialect, each built once by whoever needs it first; None while there are none.
    """

    offset: int
    event: Event
    frames: dict[str, bytes] | None = None

    @property
    def terminal(self) -> bool:
        """Whether it ends the log."""
        return self.event.terminal

    def frame(self, dialect: str, encode: "Callable[[Entry], bytes]") -> bytes:
        """Return this entry's form in ``dialect``; ``encode`` builds it the first time only."""
        frames = self.frames
        if frames is None:
            frame = encode(self)
            self.frames = {dialect: frame}
            return frame
        if dialect not in frames:
            frames[dialect] = encode(self)
        return frames[dialect]

    def __repr__(self) -> str:
        return f"Entry({self.offset}, {self.event!r})"


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All content up to and including ``offset``, merged; a terminal entry is never part of it.

    Attributes:
        offset: of the last entry that is merged in; 0 where there is none.
        text: the answer's text so far.
        tool_calls: the tool calls so far, their arguments perhaps unfinished.
        thoughts: the reasoning so far, the last one perhaps unfinished.
    """

    offset: int
    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    thoughts: tuple[ReasoningPart, ...] = ()

    @property
    def reasoning(self) -> str:
        """The text of all the thoughts."""
        return "".join(thought.text for thought in self.thoughts)


class EventStream(Protocol):
    """A request's log as its readers see it. All is synchronous: waiting is the reader's own business.

    Several requests may share one log. Offsets and the epoch are the log's; the request's own cancellation ends its
    stream without touching the log.
    """

    @property
    def request_id(self) -> str:
        """Whose stream this is."""

    @property
    def epoch(self) -> str:
        """The epoch of every offset here."""

    @property
    def offset(self) -> int:
        """The offset of the last entry; 0 while there is none."""

    @property
    def ended(self) -> bool:
        """Whether the last entry is terminal."""

    def since(self, after: int) -> Sequence[Entry]:
        """Return entries with offsets above ``after``, in order and without a gap, from ``after + 1`` on.

        There is one at least where ``after`` is below ``offset``. They reach the end, or are a page of a long log: then
        the caller goes on after the last one.

        Raises:
            UnrecoverablePosition: ``after`` is negative, or beyond the end.
        """

    def snapshot(self) -> Snapshot:
        """Return all content so far, merged. Where the stream has ended, its terminal entry still follows it."""

    def partial(self, new: int | None = None) -> bytes | None:
        """Return the JSON value that all the text so far has, on one line; None where the request does not ask for it.

        None also while there is no value, and where it is not worth its size: ``new`` is the number of characters that
        the reader gets now, None for one to whom all of it is new.
        """

    def listen(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` after every change, once a batch. It must not raise, block or append. Counts as a follower."""

    def unlisten(self, wake: Callable[[], None]) -> None:
        """Take ``wake`` off again; unknown ones are ignored."""
