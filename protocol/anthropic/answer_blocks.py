"""The blocks of one answer in Anthropic's dialect: each is a part of the answer, from its first content on."""

from typing import Any, Final

import msgspec

from protocol.errors import ProviderError
from protocol.events import Delta, ReasoningDelta, ToolCallDelta, VendorBlock
from protocol.ids import call_id
from protocol.llm import FinishReason
from protocol.reading.content import is_empty, text_in
from protocol.reading.loose import clean, decode, encode, extra_of, json_text, name_of, split_half, text_of
from protocol.upstream import Deltas

MAX_KEPT_BYTES: Final = 4 * 1024 * 1024  # of blocks that are given on when they end
MAX_CALLS: Final = 256
_DIALECT: Final = "anthropic"
_HALF: Final = "\ufffd"
_CALL_FIELDS: Final = frozenset({"type", "id", "name", "input"})
_ABOUT: Final = ("type", "index")  # of a delta
_DELTAS: Final = ("text_delta", "thinking_delta", "signature_delta", "input_json_delta", "citations_delta")


class OpenBlock:
    """A block that has begun.

    Attributes:
        kind: ``text``, ``thinking``, ``tool_use``, or ``vendor`` for a block of any other type.
        part: the index of its part; -1 before its first content: an empty block is no part.
        call: the number of its call.
        value: the block as it began; what comes after that is added for a vendor's block.
        given: whether its content was given on: of a call, its arguments.
        text: the text so far, for a block that is given on whole too.
        pieces: the JSON of a vendor's block's input.
        further: whether deltas of unknown types have added to it.
        half: the first half of a surrogate pair at the end of the last piece.
    """

    __slots__ = ("call", "further", "given", "half", "kind", "part", "pieces", "text", "value")

    def __init__(self, kind: str, value: dict[str, Any]) -> None:
        self.kind = kind
        self.part = -1
        self.value = value
        self.call = 0
        self.given = self.further = False
        self.half = ""
        self.text: list[str] = []
        self.pieces: list[str] = []


class AnswerBlocks:
    """Reads the blocks of an answer, and appends their content.

    Attributes:
        finish_reason: why the model stopped; None until the stream says so.
        raw_finish_reason: the upstream's own word, where the canonical reason does not say the same.
    """

    __slots__ = (
        "_blocks",
        "_calls",
        "_expected",
        "_ids",
        "_kept_bytes",
        "_last",
        "_next",
        "_texts",
        "_unread",
        "finish_reason",
        "raw_finish_reason",
    )

    def __init__(self) -> None:
        self.finish_reason: FinishReason | None = None
        self.raw_finish_reason = ""
        self._blocks: dict[int, OpenBlock] = {}  # the open ones, by index
        self._expected: dict[int, Any] = {}  # those with which the message started, and that have not begun
        self._last: int = 0  # the index of the last one
        self._next = 0  # the index of the next part
        self._calls = 0
        self._ids: set[str] = set()
        self._kept_bytes = 0
        self._texts: list[str] = []  # of the blocks that have ended
        self._unread = False  # whether there was content that can't be read

    def _begin(self, index: int | None, value: dict[str, Any], into: Deltas) -> OpenBlock:
        """Begin a block. The one at its index ends, and so do all but calls, whose pieces may be mixed."""
        if index is None:
            index = self._last + 1 if self._last in self._blocks else self._last
        for other, open_block in [*self._blocks.items()]:
            if other == index or open_block.kind != "tool_use":
                self._end(other, into)
        kind = text_of(value.get("type"))
        block = OpenBlock(kind if kind in ("text", "thinking", "tool_use") else "vendor", value)
        self._last = index
        self._blocks[index] = block
        if block.kind == "text":
            if value.get("citations"):
                self._cite(block, "")
            self._add_text(block, text_in(value.get("text")), into)
        elif block.kind == "thinking":
            self._add_thought(block, text_in(value.get("thinking")), clean(text_of(value.get("signature"))), into)
        elif kind == "redacted_thinking":
            data = clean(text_of(value.get("data")))
            into.append(ReasoningDelta(signature=data, redacted=True, part=self._part_of(block)))
            del self._blocks[index]
        elif block.kind == "tool_use":
            self._begin_call(block, value, into)
        else:
            self._bound(value)
        return block

    def _part_of(self, block: OpenBlock) -> int:
        """Return the index of a block's part, which begins with its first content."""
        if block.part < 0:
            block.part = self._next
            self._next += 1
        return block.part

    def _begin_call(self, block: OpenBlock, value: dict[str, Any], into: Deltas) -> None:
        if self._calls >= MAX_CALLS:
            raise ProviderError(code="response_too_large")
        name, id_ = name_of(value.get("name")), name_of(value.get("id"))
        if not name:
            raise ProviderError(code="provider_bad_response")
        if not id_ or id_ in self._ids:
            id_ = call_id("toolu_")
        self._ids.add(id_)
        block.call = self._calls
        self._calls += 1
        self._bound(value)
        extra = extra_of(_DIALECT, value, _CALL_FIELDS)
        into.append(ToolCallDelta(index=block.call, id=id_, name=name, part=self._part_of(block), extra=extra))
        if self.finish_reason == "stop":
            self.finish_reason, self.raw_finish_reason = "tool_calls", ""

    def _begin_at(self, index: int | None, value: Any, into: Deltas) -> None:  # noqa: ANN401 - any JSON
        """Begin a block in any form. Those before it with which the message started come first.

        Raises:
            ProviderError: ``provider_bad_response``: it is no block, and no text.
        """
        if self._expected:
            self._begin_expected(index, into)
            if index is not None:
                self._expected.pop(index, None)
        if not isinstance(value, dict):
            value = {"type": "text", "text": text_in(value)}
        self._begin(index, value, into)

    def _begin_expected(self, before: int | None, into: Deltas) -> None:
        """Read the blocks with which the message started: those before an index, or all of them."""
        expected = self._expected
        self._expected = {index: block for index, block in expected.items() if before is not None and index >= before}
        for index, block in expected.items():
            if index not in self._expected and not is_empty(block):
                self._begin(index, block if isinstance(block, dict) else {"type": "text", "text": block}, into)

    def _add_delta(self, index: int | None, delta: Any, into: Deltas) -> None:  # noqa: ANN401 - any JSON
        """Add a delta in any form. One whose block has not begun begins it.

        Raises:
            ProviderError: ``provider_bad_response``: it has a piece of a call, and its block is no call.
        """
        if self._expected:
            at = self._last if index is None else index
            self._begin_expected(at + 1, into)
        block = self._blocks.get(self._last if index is None else index)
        if not isinstance(delta, dict):
            delta = {"text": delta}
        if block is not None and block.kind == "vendor":
            self._add_to_vendor(block, delta)
            return
        text, thought = text_in(delta.get("text")), text_in(delta.get("thinking"))
        signature, arguments = clean(text_of(delta.get("signature"))), delta.get("partial_json")
        if text:
            self._add_text(self._block_of("text", block, index, into), text, into)
        elif thought or signature:
            self._add_thought(self._block_of("thinking", block, index, into), thought, signature, into)
        elif not is_empty(arguments):
            if block is None or block.kind != "tool_use":
                raise ProviderError(code="provider_bad_response")
            self._add_arguments(block, json_text(arguments), into)
        elif block is not None and delta.get("citation") is not None:
            self._cite(block, delta["citation"])
        else:
            self._add_unknown(block, delta)

    def _add_unknown(self, block: OpenBlock | None, delta: dict[str, Any]) -> None:
        """Add a delta of an unknown type: its fields are further ones of a text.

        Raises:
            ProviderError: ``provider_bad_response``: it is of a call, which has to be whole.
        """
        further = {name: value for name, value in delta.items() if name not in _ABOUT and not is_empty(value)}
        if not further or text_of(delta.get("type")) in _DELTAS:
            return
        if block is not None and block.kind == "tool_use":
            raise ProviderError(code="provider_bad_response")
        if block is None or block.kind != "text":
            self._unread = True
            return
        self._bound(further)
        for name, value in further.items():
            before = block.value.get(name)
            block.value[name] = before + value if isinstance(before, str) and isinstance(value, str) else value
        block.further = True

    def _says_again(self, blocks: list[Any]) -> bool:
        """Whether the blocks of a whole message are those that have been read.

        Raises:
            ProviderError: ``provider_bad_response``: they are others.
        """
        if not self._next:
            return False
        calls = [block for block in blocks if isinstance(block, dict) and block.get("type") == "tool_use"]
        texts = [block for block in blocks if not isinstance(block, dict) or block.get("type") == "text"]
        said = "".join([text_in(block.get("text") if isinstance(block, dict) else block) for block in texts])
        if blocks and not is_empty(blocks) and (said != "".join(self._texts) or len(calls) != self._calls):
            raise ProviderError(code="provider_bad_response")
        return True

    def _check_read(self) -> None:
        """Check that an answer without a part has not had content that could not be read.

        Raises:
            ProviderError: ``provider_bad_response``: it had.
        """
        if self._unread and not self._next:
            raise ProviderError(code="provider_bad_response")

    def _block_of(self, kind: str, block: OpenBlock | None, index: int | None, into: Deltas) -> OpenBlock:
        return block if block is not None and block.kind == kind else self._begin(index, {"type": kind}, into)

    def _add_text(self, block: OpenBlock, text: str, into: Deltas) -> None:
        text, block.half = split_half(block.half + text)
        if text:
            into.append(Delta(text=text, part=self._part_of(block)))
            block.text.append(text)

    def _add_thought(self, block: OpenBlock, thought: str, signature: str, into: Deltas) -> None:
        thought, block.half = split_half(block.half + thought)
        if thought or signature:
            into.append(ReasoningDelta(text=thought, signature=signature, part=self._part_of(block)))

    def _add_arguments(self, block: OpenBlock, text: str, into: Deltas) -> None:
        text, block.half = split_half(block.half + text)
        if not block.given:
            text = text.lstrip()
        if text:
            block.given = True
            into.append(ToolCallDelta(index=block.call, arguments=text, part=block.part))

    def _add_to_vendor(self, block: OpenBlock, delta: dict[str, Any]) -> None:
        """Add a delta to a block that is given on whole: its input, or a text of its own."""
        self._bound(delta)
        piece = delta.get("partial_json")
        if piece is not None:
            block.pieces.append(json_text(piece))
            return
        for name in ("text", "thinking", "signature", "data", "content"):
            item = delta.get(name)
            if isinstance(item, str):
                before = block.value.get(name)
                block.value[name] = (before if isinstance(before, str) else "") + item

    def _cite(self, block: OpenBlock, citation: Any) -> None:  # noqa: ANN401 - any JSON
        """Add a citation of a text."""
        self._bound(citation)
        citations = block.value.get("citations")
        if not isinstance(citations, list):
            citations = block.value["citations"] = []
        if citation:
            citations.append(citation)

    def _end_all(self, into: Deltas) -> None:
        if self._expected:
            self._begin_expected(None, into)
        for index in [*self._blocks]:
            self._end(index, into)

    def _end(self, index: int, into: Deltas) -> None:
        """End a block, where one is open: what waited for its end is given on."""
        block = self._blocks.pop(index, None)
        if block is None:
            return
        half, block.half = (_HALF if block.half else ""), ""
        if block.kind == "tool_use":
            rest = half if block.given else _arguments(block.value.get("input"))
            if rest:
                into.append(ToolCallDelta(index=block.call, arguments=rest, part=block.part))
        elif block.kind == "vendor":
            self._give(block, into)
        else:
            if half:
                self._add_half(block, into)
            self._texts += block.text
            if block.value.get("citations") or block.further:
                block.value["text"] = "".join(block.text)
                self._give(block, into)

    def _add_half(self, block: OpenBlock, into: Deltas) -> None:
        if block.kind == "text":
            self._add_text(block, _HALF, into)
        else:
            into.append(ReasoningDelta(text=_HALF, part=self._part_of(block)))

    def _give(self, block: OpenBlock, into: Deltas) -> None:
        """Append a block in the vendor's own form."""
        value = block.value
        if block.pieces:
            try:
                value["input"] = decode("".join(block.pieces).encode("utf-8", "surrogatepass"))
            except ProviderError:
                value["input"] = {}
        into.append(VendorBlock(dialect=_DIALECT, value=msgspec.Raw(encode(value)), part=self._part_of(block)))

    def _bound(self, value: Any) -> None:  # noqa: ANN401 - any JSON
        self._kept_bytes += len(encode(value))
        if self._kept_bytes > MAX_KEPT_BYTES:
            raise ProviderError(code="response_too_large")


def _arguments(value: Any) -> str:  # noqa: ANN401 - any JSON
    """Return the arguments of a call whose input came at its begin, or not at all."""
    text = json_text(value).strip()
    return text or "{}"
