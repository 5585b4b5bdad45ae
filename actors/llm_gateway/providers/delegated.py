"""Base class of readers that stand over another one."""

from protocol.llm import Extra, FinishReason, Usage
from protocol.upstream import AnswerReader, Deltas


class DelegatedAnswer:
    """Says of an answer what another reader says of it: an ``AnswerReader``.

    Args:
        reader: the other one.
    """

    __slots__ = ("_reader",)

    def __init__(self, reader: AnswerReader) -> None:
        self._reader = reader

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the model stopped."""
        return self._reader.finish_reason

    @property
    def raw_finish_reason(self) -> str:
        """The upstream's own word for it."""
        return self._reader.raw_finish_reason

    @property
    def refused(self) -> bool:
        """Whether the model has said that it refuses to answer."""
        return self._reader.refused

    @property
    def counted(self) -> bool:
        """Whether the output tokens are the final count."""
        return self._reader.counted

    @property
    def stop_sequence(self) -> str:
        """The text at which it stopped."""
        return self._reader.stop_sequence

    @property
    def extra(self) -> Extra:
        """Fields of the answer that only its dialect has."""
        return self._reader.extra

    @property
    def usage(self) -> Usage | None:
        """Tokens, once they are reported."""
        return self._reader.usage

    @property
    def model(self) -> str:
        """The upstream's own name of the model."""
        return self._reader.model

    @property
    def response_id(self) -> str:
        """The upstream's id of the answer."""
        return self._reader.response_id

    @property
    def ended(self) -> bool:
        """Whether the stream's end marker has come."""
        return self._reader.ended

    @property
    def whole(self) -> bool:
        """Whether nothing of the answer is missing, should the stream stop here."""
        return self._reader.whole

    def feed(self, data: bytes, into: Deltas) -> None:
        """Read the data of one event, and append its content to ``into``."""
        self._reader.feed(data, into)

    def close(self, into: Deltas, *, proper: bool) -> None:
        """Read the end of the stream, and append the content that waited for it to ``into``."""
        self._reader.close(into, proper=proper)
