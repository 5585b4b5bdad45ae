"""The row of parts of one message in OpenAI's dialect: texts, thoughts, refusals, calls, and a vendor's own fields."""

from typing import Any, Final

import msgspec

from protocol.errors import ProviderError
from protocol.events import Delta, ReasoningDelta, RefusalDelta, VendorBlock
from protocol.llm import FinishReason
from protocol.openai.call_pieces import piece_of
from protocol.openai.calls import CallReader
from protocol.openai.loose_choice import LooseDelta
from protocol.openai.vendor_fields import VendorFields
from protocol.reading.content import Kind, Said
from protocol.reading.loose import clean, encode, split_half
from protocol.upstream import Deltas

_DIALECT: Final = "openai"
_IMAGES: Final = ("image", "image_url", "output_image")  # types of parts that are images
_CUT: Final = ("length", "content_filter")
MAX_ENTRIES: Final = 1024  # pieces of calls in one piece of a message
MAX_COMPARED: Final = 64 * 1024 * 1024  # characters of an answer that are compared with whole messages after it
MAX_WORDS: Final = 128 * 1024  # characters of a text that is compared without regard to its blanks
WORDS_WEIGH: Final = 16  # times what other comparisons do
_HALF: Final = "\ufffd"
_json = msgspec.json.Encoder().encode


class MessageParts:
    """Numbers the parts of a message as they begin, and appends their pieces.

    Attributes:
        finish_reason: why the model stopped; None until the stream says so.
        raw_finish_reason: the upstream's own word for a reason that is not known.
        refused: whether the model has said that it refuses to answer.
    """

    __slots__ = (
        "_by_message",
        "_calls",
        "_compared",
        "_empty_thought",
        "_fields",
        "_half",
        "_kind",
        "_kinds",
        "_length",
        "_measured",
        "_next",
        "_part",
        "_texts",
        "finish_reason",
        "raw_finish_reason",
        "refused",
    )

    def __init__(self) -> None:
        self.finish_reason: FinishReason | None = None
        self.raw_finish_reason = ""
        self.refused = False
        self._kind: Kind = ""  # of the last part, while more of it may come
        self._part = 0  # its index
        self._next = 0  # the index of the next part
        self._half = ""  # the first half of a surrogate pair at the end of the last piece
        self._calls: CallReader | None = None
        self._fields: VendorFields | None = None
        self._texts: list[str] = []  # all pieces of the text
        self._measured = self._length = 0  # how many of them have been measured, and their characters
        self._compared = 0  # characters that have been compared with whole messages
        self._kinds: tuple[Kind, ...] = ()  # of the parts so far
        self._empty_thought = False  # whether reasoning was said that is empty
        self._by_message = False  # whether the content comes in messages, and not in deltas

    def _begin(self, kind: Kind, into: Deltas) -> None:
        """Begin a part: what waited for the end of the one before is given on."""
        if self._kind or self._calls is not None or self._fields is not None:
            self._end_part(into)
        self._kind = kind
        if kind not in self._kinds:
            self._kinds += (kind,)
        self._part = self._next
        self._next += 1

    def _end_part(self, into: Deltas) -> None:
        """End the last part: no more of it can come."""
        if self._half:
            self._half = ""
            self._piece(self._kind, _HALF, into)
        if self._calls is not None and self._calls.holds:
            self._calls.release(into)
        self._kind = ""
        if self._fields is not None and self._fields.has_details:
            self._block({"reasoning_details": self._fields.take_details()}, into)

    def _piece(self, kind: Kind, text: str, into: Deltas) -> None:
        """Append a piece to the last part, which is of this kind."""
        if kind == "text":
            into.append(Delta(text=text, part=self._part))
            self._texts.append(text)
        elif kind == "reasoning":
            into.append(ReasoningDelta(text=text, part=self._part))
        else:
            into.append(RefusalDelta(text=text, part=self._part))

    def _add_text(self, text: str, logprobs: list[Any], into: Deltas) -> None:
        if self._kind != "text":
            self._begin("text", into)
        try:
            probabilities = _json(logprobs)
        except (RecursionError, OverflowError):
            probabilities = encode(logprobs)
        into.append(Delta(text=text, logprobs=probabilities.decode(), part=self._part))
        self._texts.append(text)

    def _add_calls(self, entries: list[Any], into: Deltas) -> None:
        calls = self._calls
        if calls is None:
            calls = self._calls = CallReader()
        calls.begin_list()
        if len(entries) > MAX_ENTRIES:
            raise ProviderError(code="response_too_large")
        for entry in entries:
            try:
                piece = piece_of(entry)
            except RecursionError as error:
                raise ProviderError(code="provider_bad_response") from error
            if piece is None:
                continue
            if piece.names_call and (self._kind or (self._fields is not None and self._fields.has_details)):
                self._end_part(into)
            if calls.add(piece, self._next, into):
                self._next += 1
                if self.finish_reason == "stop":
                    self.finish_reason, self.raw_finish_reason = "tool_calls", ""

    def _block(self, fields: dict[str, Any], into: Deltas) -> None:
        """Append fields of this dialect alone as a part of their own."""
        into.append(VendorBlock(dialect=_DIALECT, value=msgspec.Raw(encode(fields)), part=self._next))
        self._next += 1

    def _end_message(self, into: Deltas) -> None:
        """Append what waits for the end of the message.

        Some vendors want reasoning back that was empty: it is a field of theirs, where the answer has no other.
        """
        if self._empty_thought and "reasoning" not in self._kinds:
            self._own_fields().add({"reasoning_content": ""}, whole=True)
        self._empty_thought = False
        if self._calls is None and self._fields is None and not self._half:
            return
        if self._calls is not None:
            self._next += self._calls.close(self._next, into, cut=self.finish_reason in _CUT)
        self._end_part(into)
        if self._fields is not None:
            for name, value in self._fields.take():
                self._block({name: value}, into)

    # ------------------------------------------------------------------------------------------- deltas in any form

    def _add_delta(self, delta: LooseDelta, logprobs: Any, finish: Any, into: Deltas) -> None:  # noqa: ANN401
        """Append what a delta or a message says that has not been said.

        Args:
            delta: what it says.
            logprobs: those of its choice.
            finish: why the model stopped; None for a delta that is not the last one.
            into: the content.
        """
        if delta.whole and self._next == 0:
            self._by_message = True
        elif delta.whole and (not self._by_message or self._repeats(delta.text(), finish)):
            self._leave_out_repeats(delta)
        elif self._repeats(delta.text(), finish):
            delta.leave_out("text")
        for said in delta.thoughts:
            self._add_said(said, into)
        if delta.details:
            self._own_fields().add_details(delta.details)
        for said in delta.refusals:
            self._add_said(said, into)
        if delta.legacy:
            self._add_calls(delta.legacy, into)
        self._add_content(delta, logprobs, into)
        if delta.calls:
            self._add_calls(delta.calls, into)
        self._add_fields(delta, into)

    def _add_content(self, delta: LooseDelta, logprobs: Any, into: Deltas) -> None:  # noqa: ANN401 - any JSON
        probabilities = logprobs.get("content") if isinstance(logprobs, dict) else None
        if isinstance(probabilities, list) and probabilities:
            text = delta.text()
            delta.leave_out("text")
            self._add_text(clean(self._taken_half("text") + text), clean(probabilities), into)
        for said in delta.content:
            self._add_said(said, into)

    def _add_fields(self, delta: LooseDelta, into: Deltas) -> None:
        if delta.last:
            self._own_fields().keep_last(delta.last)
        if delta.fields:
            self._own_fields().add(delta.fields, whole=delta.whole)
        if delta.extra_content:
            self._end_part(into)
            self._own_fields().given["extra_content"] = delta.extra_content
            self._block({"extra_content": delta.extra_content}, into)

    def _repeats(self, text: str, finish: Any) -> bool:  # noqa: ANN401 - any JSON
        """Whether the text of a last piece is all of the text once more."""
        if not finish or len(self._texts) <= 1:
            return False
        self._length += sum(map(len, self._texts[self._measured :]))
        self._measured = len(self._texts)
        return len(text) == self._length and text == "".join(self._texts)

    def _leave_out_repeats(self, delta: LooseDelta) -> None:
        """Leave out of a whole message what its deltas have said.

        Raises:
            ProviderError: ``provider_bad_response``: the message says something else than they did;
                ``response_too_large``: there are too many messages, for an answer so long.
        """
        text, known = clean(delta.text()).strip(), "".join(self._texts).strip()
        self._compare(len(known))
        if known and text:
            more = text.startswith(known)
            if not more and not known.startswith(text) and not self._begins(known, text):
                raise ProviderError(code="provider_bad_response")
            delta.leave_out("text")
            delta.content += [("text", text.removeprefix(known))] if more else []
        for kind in self._kinds:
            if kind != "text":
                delta.leave_out(kind)
        if self._calls and self._knows(delta.calls or delta.legacy):
            delta.calls, delta.legacy = [], []
        given = self._own_fields().given
        if "reasoning_details" in given or self._own_fields().has_details:
            delta.details = []
        if delta.extra_content == given.get("extra_content"):
            delta.extra_content = {}

    def _knows(self, entries: list[Any]) -> bool:
        """Whether a whole message's calls are those that have been read. Comparing them is counted."""
        if self._calls is None or len(entries) > MAX_ENTRIES:
            return False
        self._compare(self._calls.size)
        return self._calls.knows(entries)

    def _begins(self, known: str, text: str) -> bool:
        """Whether ``known`` begins with ``text``, where blanks don't matter; False for long texts."""
        self._compare(WORDS_WEIGH * len(known))
        return len(known) <= MAX_WORDS >= len(text) and "".join(known.split()).startswith("".join(text.split()))

    def _compare(self, characters: int) -> None:
        """Count a comparison.

        Raises:
            ProviderError: ``response_too_large``.
        """
        self._compared += characters
        if self._compared > MAX_COMPARED:
            raise ProviderError(code="response_too_large")

    def _own_fields(self) -> VendorFields:
        if self._fields is None:
            self._fields = VendorFields()
        return self._fields

    def _add_said(self, said: Said, into: Deltas) -> None:
        """Append a text, or a part of an unknown type; an image is one of the message's images."""
        if not isinstance(said, dict):
            self._add_loosely(*said, into)
        elif said.get("type") in _IMAGES:
            self._own_fields().add({"images": [said]}, whole=False)
        else:
            self._own_fields().bound(said)
            self._end_part(into)
            self._block(said, into)

    def _add_loosely(self, kind: Kind, text: str, into: Deltas) -> None:
        """Append a piece, which may have halves of surrogate pairs."""
        if self._kind != kind:
            if not text:
                return
            self._begin(kind, into)
        if kind == "refusal" and text:
            self.refused = True
        text, self._half = split_half(self._half + text)
        if text:
            self._piece(kind, text, into)

    def _taken_half(self, kind: Kind) -> str:
        """Return the half of a pair that waits in a part of this kind, and forget it."""
        if self._kind != kind:
            return ""
        half, self._half = self._half, ""
        return half
