"""Events and entries of a log, and the interface that reads a log.

A log is append-only. Its entries have contiguous offsets from 1 within one *epoch*. It ends with exactly one terminal
event: ``Completed``, ``Failed`` or ``Cancelled``.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

import msgspec

from protocol.errors import FieldError, InvalidRequest
from protocol.llm import AnswerPart, Extra, FinishReason, HasParts, Usage, Vendor, size_of, utf8_length


class _Event(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="type", omit_defaults=True):
    """Base of the events.

    Attributes:
        terminal: whether the event ends its log.
    """

    terminal: ClassVar[bool] = False

    def size(self) -> int:
        """Return the size of its texts, in bytes of UTF-8."""
        return 0


class Started(_Event, frozen=True, tag="started"):
    """The log has started: always the entry at offset 1.

    Attributes:
        model: the model name that the caller used.
        created: Unix time in seconds.
    """

    model: str
    created: int

    def size(self) -> int:  # noqa: D102 - the contract is the base's
        return utf8_length(self.model)


class Delta(_Event, frozen=True, tag="delta"):
    """A piece of the answer's text.

    Attributes:
        text: the piece.
        logprobs: OpenAI's log probabilities of its tokens, a JSON array; empty where they were not asked for.
        part: the index of the piece's part in the answer's row of parts, from 0 in the order in which parts begin.
    """

    text: str
    logprobs: str = ""
    part: int = 0

    def size(self) -> int:  # noqa: D102 - the contract is the base's
        text = self.text
        return (len(text) if text.isascii() else utf8_length(text)) + len(self.logprobs)


class ReasoningDelta(_Event, frozen=True, tag="reasoning"):
    """A piece of the model's reasoning. A ``signature`` ends the current part.

    Attributes:
        text: the piece.
        signature: as in ``llm.ReasoningPart``.
        redacted: as in ``llm.ReasoningPart``; a redacted part has only this piece.
        part: as in ``Delta``.
    """

    text: str = ""
    signature: str = ""
    redacted: bool = False
    part: int = 0

    def size(self) -> int:  # noqa: D102 - the contract is the base's
        return utf8_length(self.text) + utf8_length(self.signature)


class ToolCallDelta(_Event, frozen=True, tag="tool_call"):
    """A piece of tool call ``index``: the first one has its id and name, each one adds to ``arguments``.

    Attributes:
        index: the number of the call among the answer's calls, from 0.
        id: the call's id.
        name: the tool's name.
        arguments: the piece of the JSON text.
        part: as in ``Delta``; the pieces of one call have one part, whatever comes between them.
        extra: as for ``llm.ToolCall``; the pieces' fields together are the call's.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    part: int = 0
    extra: Extra = {}

    def size(self) -> int:  # noqa: D102 - the contract is the base's
        return utf8_length(self.arguments) + utf8_length(self.name) + utf8_length(self.id)


class RefusalDelta(_Event, frozen=True, tag="refusal"):
    """A piece of the text with which the model refuses to answer (``refusal`` in OpenAI's dialect)."""

    text: str
    part: int = 0

    def size(self) -> int:  # noqa: D102 - the contract is the base's
        return utf8_length(self.text)


class VendorBlock(_Event, frozen=True, tag="vendor"):
    """A whole part of the answer that only one vendor's dialect has, such as a server tool's result.

    Attributes:
        dialect: whose dialect it is.
        value: a JSON object: a block of Anthropic's as the vendor sent it; fields of a message of OpenAI's dialect.
        part: as in ``Delta``. A block whose part has had pieces before is the same part in the vendor's own form, with
            what the pieces can't say, such as a text's citations.
    """

    dialect: Vendor
    value: msgspec.Raw
    part: int = 0

    def size(self) -> int:  # noqa: D102 - the contract is the base's
        return len(memoryview(self.value))


class AttemptFailed(_Event, frozen=True, tag="attempt_failed"):
    """A boundary: the call with the content so far broke off, or its answer did not match the schema.

    Attributes:
        provider: the provider's name.
        model: the provider's name of the model.
        code: the failure's code.
        restart: whether the answer starts again after this entry; the content before it is then void.
    """

    provider: str
    model: str
    code: str
    restart: bool = False


class Completed(_Event, HasParts, frozen=True, tag="completed"):
    """The end of a complete answer.

    Attributes:
        parts: the answer's parts, in order. With a result their text is the result's JSON.
        result: the validated JSON where the request has a schema; None without one, and where the model answered with
            tool calls.
        finish_reason: why the model stopped.
        raw_finish_reason: the upstream's own word, where ``finish_reason`` is ``other``, and where Anthropic's dialect
            has a word that the canonical reasons do not have; empty otherwise.
        usage: tokens of all the request's attempts.
        provider: the provider that answered.
        model: the provider's name of the model.
        logprobs: of the whole text, as in ``Delta``.
        stop_sequence: the text at which the model stopped; empty for none, and where the provider does not report it.
        extra: fields of the answer that only one vendor's dialect has, such as Anthropic's container, by dialect; those
            of its usage are under ``usage``.
    """

    terminal = True

    parts: tuple[AnswerPart, ...] = ()
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    finish_reason: FinishReason = "stop"
    raw_finish_reason: str = ""
    usage: Usage = Usage()
    provider: str = ""
    model: str = ""
    logprobs: str = ""
    stop_sequence: str = ""
    extra: Extra = {}

    def size(self) -> int:  # noqa: D102 - the contract is the base's
        result = 0 if self.result is msgspec.UNSET else len(memoryview(self.result))
        extra = len(msgspec.json.encode(self.extra)) if self.extra else 0
        return size_of(self.parts) + result + len(self.logprobs) + extra


class Failed(_Event, frozen=True, tag="failed"):
    """The end of a failed request. ``code`` is a row of ``errors.PROBLEMS``."""

    terminal = True

    code: str
    message: str
    temporary: bool = False
    retry_after_ms: int | None = None
    errors: tuple[FieldError, ...] = ()

    def size(self) -> int:  # noqa: D102 - the contract is the base's
        return utf8_length(self.message)


class Cancelled(_Event, frozen=True, tag="cancelled"):
    """The end of a cancelled request."""

    terminal = True

    reason: str = "cancelled"


Content = Delta | ReasoningDelta | ToolCallDelta | RefusalDelta | VendorBlock | AttemptFailed
Terminal = Completed | Failed | Cancelled
Event = Started | Content | Terminal


class Position(msgspec.Struct, frozen=True):
    """A reader's position: an offset within an epoch. As text it is ``epoch:offset``."""

    epoch: str
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Parse ``epoch:offset``.

        Raises:
            InvalidRequest: ``invalid_position``: the text is not a position.
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
        event: the event.
        frames: encoded forms by dialect, each built once at its first use; None while there is none.
    """

    offset: int
    event: Event
    frames: dict[str, bytes] | None = None

    @property
    def terminal(self) -> bool:
        """Whether the entry ends the log."""
        return self.event.terminal

    def frame(self, dialect: str, encode: "Callable[[Entry], bytes]") -> bytes:
        """Return the entry encoded for ``dialect``; ``encode`` is called the first time only."""
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


class Snapshot(msgspec.Struct, HasParts, frozen=True, kw_only=True):
    """All content up to and including ``offset``, merged, without a terminal entry.

    Attributes:
        offset: of the last merged entry; 0 where there is none.
        parts: the answer's parts so far, in order. The last one may be incomplete, and so may the arguments of any
            tool call.
    """

    offset: int
    parts: tuple[AnswerPart, ...] = ()

    @property
    def reasoning(self) -> str:
        """The text of the whole reasoning."""
        return "".join([thought.text for thought in self.thoughts])


class EventStream(Protocol):
    """A request's log, for its readers. All methods are synchronous; a reader waits by ``listen``.

    Several requests may share one log. Offsets and the epoch belong to the log; cancelling a request ends only its own
    stream.
    """

    @property
    def request_id(self) -> str:
        """The request's id."""

    @property
    def epoch(self) -> str:
        """The epoch of the offsets."""

    @property
    def offset(self) -> int:
        """The offset of the last entry; 0 while there is none."""

    @property
    def ended(self) -> bool:
        """Whether the last entry is terminal."""

    def since(self, after: int) -> Sequence[Entry]:
        """Return entries with offsets above ``after``, in order and without a gap, from ``after + 1`` on.

        There is at least one where ``after`` is below ``offset``. They reach the end, or they are one page of a long
        log: then the caller continues after the last one.

        Raises:
            UnrecoverablePosition: ``after`` is negative, or beyond the end.
        """

    def snapshot(self) -> Snapshot:
        """Return all content so far, merged. The terminal entry of an ended stream is not part of it."""

    def partial(self, new: int | None = None) -> bytes | None:
        """Return the JSON value of the text so far, on one line; None where the request did not ask for it.

        None also while there is no value, and where the value is too large for what is new: ``new`` is the number of
        characters that the reader gets now; None for all of them.
        """

    def listen(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` after each batch of changes. It must not raise, block or append. It counts as a follower."""

    def unlisten(self, wake: Callable[[], None]) -> None:
        """Stop calling ``wake``. An unknown ``wake`` is ignored."""
