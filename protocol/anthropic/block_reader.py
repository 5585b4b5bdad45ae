"""The blocks of an answer in Anthropic's dialect, as they come from a provider: reads their events into pieces."""

from typing import Any, Final

import msgspec

from protocol.anthropic.open_block import OpenBlock
from protocol.errors import ProviderError
from protocol.events import Delta, ReasoningDelta, ToolCallDelta, VendorBlock
from protocol.ids import call_id
from protocol.reading.content import is_empty, text_in
from protocol.reading.loose import (
    clean,
    decode,
    encode,
    extra_of,
    json_text,
    name_of,
    place_of,
    split_half,
    text_of,
)
from protocol.upstream import Deltas

MAX_KEPT_BYTES: Final = 4 * 1024 * 1024  # of blocks that are given on when they end
MAX_CALLS: Final = 256
MAX_HELD: Final = 256  # events that wait for the end of an earlier block
MAX_HELD_BYTES: Final = 1024 * 1024
MAX_EXPECTED: Final = 1024  # blocks with which a message starts
MAX_LOOKED: Final = 16 * 1024 * 1024  # characters that are looked at for the end of a block's input
MAX_NAME: Final = 1024  # characters of a tool's name
MAX_ID: Final = 64 * 1024  # characters of a call's id
LEAST_BYTES: Final = 64  # that a piece of what is kept counts
_DIALECT: Final = "anthropic"
_HALF: Final = "\ufffd"
_CALL_FIELDS: Final = frozenset({"type", "id", "name", "input"})
_ABOUT: Final = ("type", "index")  # of a delta
_DELTAS: Final = ("text_delta", "thinking_delta", "signature_delta", "input_json_delta", "citations_delta")
_TYPES: Final = {"text": "text", "thinking": "thinking", "name": "tool_use", "data": "redacted_thinking"}
"""What a block without a type is, by a field that it has."""


class BlockDelta(msgspec.Struct, gc=False):
    """A usual delta."""

    type: str
    text: str = ""
    partial_json: str = ""
    thinking: str = ""


class BlockReader:
    """Reads the events of blocks. The parts have the order in which their blocks begin.

    A block ends with the beginning of the next one, because some upstreams don't say where a block ends; only calls go
    on, whose pieces may be mixed. But where the content of a block has still to come, events of the blocks after it are
    held until it ends, ``MAX_HELD`` of them at most.

    Attributes:
        calls: the number of calls.
        unread: whether there was content that can't be read.
    """

    __slots__ = (
        "_awaited",
        "_blocks",
        "_called",
        "_expected",
        "_held",
        "_held_bytes",
        "_hurries",
        "_ids",
        "_kept_bytes",
        "_last",
        "_looked",
        "_next",
        "_texts",
        "calls",
        "unread",
    )

    def __init__(self) -> None:
        self.calls = 0
        self.unread = False
        self._texts: list[str] = []  # of the blocks that have ended
        self._expected: dict[int, Any] = {}  # those with which the message started, and that have not begun
        self._blocks: dict[int, OpenBlock] = {}  # the open ones, by index
        self._last = 0  # the index of the last one
        self._next = 0  # the index of the next part
        self._awaited: int | None = None  # the index of the block that the held events wait for
        self._held: list[tuple[str, dict[str, Any]]] = []
        self._held_bytes = 0
        self._hurries = False  # whether the held events are read because they are too many
        self._called: set[int] = set()  # the indexes of calls
        self._ids: set[str] = set()
        self._kept_bytes = 0
        self._looked = 0  # characters that have been looked at for the end of a block's input

    def add_plain(self, index: int | None, delta: BlockDelta | None, into: Deltas) -> bool:
        """Append a usual delta of an open block; False for one that has to be read loosely."""
        block = self._blocks.get(self._last if index is None else index)
        if block is None or delta is None or block.part < 0 or block.half:
            return False
        if delta.type == "text_delta" and block.kind == "text":
            if delta.text:
                into.append(Delta(text=delta.text, part=block.part))
                block.text.append(delta.text)
            return True
        if delta.type == "thinking_delta" and block.kind == "thinking":
            if delta.thinking:
                into.append(ReasoningDelta(text=delta.thinking, part=block.part))
            return True
        if delta.type == "input_json_delta" and block.kind == "tool_use":
            self._add_arguments(block, delta.partial_json, into)
            return True
        return False

    def read(self, value: dict[str, Any], kind: str, into: Deltas) -> None:
        """Read an event of a block, loosely; ``kind`` is its type.

        Raises:
            ProviderError: ``provider_bad_response``: a call has no name, or arguments belong to no call;
                ``response_too_large``.
        """
        index = place_of(value.get("index"))
        if kind == "content_block_start" and index is not None and not self._held and not self._hurries:
            waiting = (other for other, block in self._blocks.items() if other != index and self._waits(block))
            self._awaited = next(waiting, None)
        if self._awaited is None or index == self._awaited or index in self._blocks:
            self._read(index, value, kind, into)
        else:
            self._hold(value, kind, into)
        if self._awaited is not None and self._awaited not in self._blocks:
            self._release(into)

    def expect(self, content: Any) -> None:  # noqa: ANN401 - any JSON
        """Keep the content with which a message starts: its blocks may come again, one by one.

        Raises:
            ProviderError: ``response_too_large``.
        """
        if not is_empty(content):
            self._bound(content)
            blocks = content if isinstance(content, list) else [content]
            if len(blocks) > MAX_EXPECTED:
                raise ProviderError(code="response_too_large")
            self._expected = dict(enumerate(blocks))

    def read_whole(self, content: Any, into: Deltas) -> None:  # noqa: ANN401 - any JSON
        """Read the content of a whole message, which may be what has been read already.

        Raises:
            ProviderError: ``provider_bad_response``: it is other content than that.
        """
        blocks = content if isinstance(content, list) else [content]
        self.end_all(into)
        for block in () if self._says_again(blocks) else blocks:
            if not is_empty(block):
                self._begin_at(None, block, into)
                self._end(self._last, into)

    def check_read(self) -> None:
        """Check that an answer without a part has not had content that could not be read.

        Raises:
            ProviderError: ``provider_bad_response``: it had.
        """
        if self.unread and not self._next:
            raise ProviderError(code="provider_bad_response")

    def end_all(self, into: Deltas) -> None:
        """End all blocks: no event of one can come any more."""
        if self._expected:
            self._begin_expected(None, into)
        while self._blocks or self._held:
            for index in [*self._blocks]:
                self._end(index, into)
            self._release(into)

    # ------------------------------------------------------------------------------------------------- the order

    def _waits(self, block: OpenBlock) -> bool:
        """Whether a block's content has still to come. What is looked at for that is bounded; then it does not."""
        self._looked += block.pieces_length
        return self._looked <= MAX_LOOKED and block.waits

    def _hold(self, value: dict[str, Any], kind: str, into: Deltas) -> None:
        """Hold an event for the end of an earlier block; too many of them end that block."""
        self._held.append((kind, value))
        self._held_bytes += len(encode(value))
        if self._awaited is not None and (len(self._held) > MAX_HELD or self._held_bytes > MAX_HELD_BYTES):
            self._hurries = True  # read all of them now: each could wait again, for the next one
            self._end(self._awaited, into)
            self._release(into)
            self._hurries = False

    def _release(self, into: Deltas) -> None:
        """Read the held events: the block that they waited for has ended."""
        held, self._held, self._held_bytes, self._awaited = self._held, [], 0, None
        for kind, value in held:
            self.read(value, kind, into)

    def _read(self, index: int | None, value: dict[str, Any], kind: str, into: Deltas) -> None:
        delta, block = value.get("delta"), value.get("content_block")
        if kind == "content_block_delta":
            self._add_delta(index, value if is_empty(delta) else delta, into)
        elif kind == "content_block_start":
            if not is_empty(block):
                self._begin_at(index, block, into)
        elif kind == "content_block_stop":
            self._end(self._last if index is None else index, into)

    # ------------------------------------------------------------------------------------------------- a block's begin

    def _begin(self, index: int | None, value: dict[str, Any], into: Deltas) -> OpenBlock:
        """Begin a block. The one at its index ends, and so do all but calls, whose pieces may be mixed."""
        if index is None:
            index = self._last + 1 if self._last in self._blocks else self._last
        for other, open_block in [*self._blocks.items()]:
            if other == index or open_block.kind != "tool_use":
                self._end(other, into)
        kind = _type_of(value)
        block = OpenBlock(kind if kind in ("text", "thinking", "tool_use") else "vendor", {**value, "type": kind})
        self._last = index
        self._blocks[index] = block
        if block.kind == "text":
            if value.get("citations"):
                self._cite(block, "")
            self._add_text(block, text_in(value.get("text")), into)
        elif block.kind == "thinking":
            self._add_thought(block, text_in(value.get("thinking")), value.get("signature"), into)
        elif kind == "redacted_thinking":
            data = clean(text_of(value.get("data")))
            into.append(ReasoningDelta(signature=data, redacted=True, part=self._part_of(block)))
            del self._blocks[index]
        elif block.kind == "tool_use":
            self._begin_call(index, block, value, into)
        else:
            self._bound(value)
        return block

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

    def _says_again(self, blocks: list[Any]) -> bool:
        """Whether the blocks of a whole message are those that have been read.

        Raises:
            ProviderError: ``provider_bad_response``: they are others.
        """
        if not self._next:
            return False
        calls = [block for block in blocks if isinstance(block, dict) and _type_of(block) == "tool_use"]
        texts = [block for block in blocks if not isinstance(block, dict) or _type_of(block) == "text"]
        said = "".join([text_in(block.get("text") if isinstance(block, dict) else block) for block in texts])
        if blocks and not is_empty(blocks) and (said != "".join(self._texts) or len(calls) != self.calls):
            raise ProviderError(code="provider_bad_response")
        return True

    def _part_of(self, block: OpenBlock) -> int:
        """Return the index of a block's part, which begins with its first content."""
        if block.part < 0:
            block.part = self._next
            self._next += 1
        return block.part

    def _begin_call(self, index: int, block: OpenBlock, value: dict[str, Any], into: Deltas) -> None:
        if self.calls >= MAX_CALLS:
            raise ProviderError(code="response_too_large")
        name, id_ = name_of(value.get("name")), name_of(value.get("id"))
        if not name:
            raise ProviderError(code="provider_bad_response")
        if len(name) > MAX_NAME or len(id_) > MAX_ID:
            raise ProviderError(code="response_too_large")
        if not id_ or id_ in self._ids:
            id_ = call_id("toolu_")
        self._ids.add(id_)
        self._called.add(index)
        block.call = self.calls
        self.calls += 1
        self._bound(value)
        extra = extra_of(_DIALECT, value, _CALL_FIELDS)
        into.append(ToolCallDelta(index=block.call, id=id_, name=name, part=self._part_of(block), extra=extra))

    # ------------------------------------------------------------------------------------------------ a block's content

    def _add_delta(self, index: int | None, delta: Any, into: Deltas) -> None:  # noqa: ANN401 - any JSON
        """Add a delta in any form. One whose block has not begun begins it."""
        if self._expected:
            self._begin_expected((self._last if index is None else index) + 1, into)
        block = self._blocks.get(self._last if index is None else index)
        if not isinstance(delta, dict):
            delta = {"text": delta}
        if block is not None and block.kind == "vendor":
            self._add_to_vendor(block, delta)
            return
        text, thought = text_in(delta.get("text")), text_in(delta.get("thinking"))
        signature, arguments = delta.get("signature"), delta.get("partial_json")
        if text:
            self._add_text(self._block_of("text", block, index, into), text, into)
        elif thought or text_of(signature):
            self._add_thought(self._block_of("thinking", block, index, into), thought, signature, into)
        elif not is_empty(arguments):
            self._add_call_piece(index, block, json_text(arguments), into)
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
            self.unread = True
            return
        self._bound(further)
        for name, value in further.items():
            if isinstance(value, str):
                block.add(name, value)
            else:
                block.value[name] = value
                block.grown[name] = []

    def _block_of(self, kind: str, block: OpenBlock | None, index: int | None, into: Deltas) -> OpenBlock:
        return block if block is not None and block.kind == kind else self._begin(index, {"type": kind}, into)

    def _add_text(self, block: OpenBlock, text: str, into: Deltas) -> None:
        text, block.half = split_half(block.half + text)
        if text:
            into.append(Delta(text=text, part=self._part_of(block)))
            block.text.append(text)

    def _add_thought(self, block: OpenBlock, thought: str, signature: Any, into: Deltas) -> None:  # noqa: ANN401 - any JSON
        """Add a thought. Its signature is given on when it ends, because it may come in pieces."""
        thought, block.half = split_half(block.half + thought)
        if thought:
            into.append(ReasoningDelta(text=thought, part=self._part_of(block)))
        piece = clean(text_of(signature))
        if piece and block.signature != [piece]:
            self._bound(piece)
            block.signature.append(piece)

    def _add_arguments(self, block: OpenBlock, text: str, into: Deltas) -> None:
        text, block.half = split_half(block.half + text)
        if not block.given:
            text = text.lstrip()
        if text:
            block.given = True
            into.append(ToolCallDelta(index=block.call, arguments=text, part=block.part))

    def _add_call_piece(self, index: int | None, block: OpenBlock | None, text: str, into: Deltas) -> None:
        """Add arguments. At the index of no open call they are the last call's, where it has none yet.

        Those of a call that has ended are dropped, and so are empty ones.

        Raises:
            ProviderError: ``provider_bad_response``: they belong to no call.
        """
        last = self._blocks.get(self._last)
        if block is not None and block.kind == "tool_use":
            self._add_arguments(block, text, into)
        elif not text.strip():
            return
        elif index is not None and last is not None and last.kind == "tool_use" and not last.given:
            self._blocks[index] = self._blocks.pop(self._last)
            self._last = index
            self._add_arguments(last, text, into)
        elif index not in self._called:
            raise ProviderError(code="provider_bad_response")

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
                block.add(name, item)

    def _cite(self, block: OpenBlock, citation: Any) -> None:  # noqa: ANN401 - any JSON
        """Add a citation of a text."""
        self._bound(citation)
        citations = block.value.get("citations")
        if not isinstance(citations, list):
            citations = block.value["citations"] = []
        if citation:
            citations.append(citation)

    # --------------------------------------------------------------------------------------------------- a block's end

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
        elif block.kind == "thinking":
            if half or block.signature:
                signature = "".join(block.signature)
                into.append(ReasoningDelta(text=half, signature=signature, part=self._part_of(block)))
        else:
            if half:
                self._add_text(block, half, into)
            self._texts += block.text
            if block.value.get("citations") or block.grown:
                block.grown["text"] = block.text
                self._give(block, into)

    def _give(self, block: OpenBlock, into: Deltas) -> None:
        """Append a block in the vendor's own form."""
        value = block.whole()
        if block.pieces:
            try:
                value["input"] = decode("".join(block.pieces).encode("utf-8", "surrogatepass"))
            except ProviderError:
                value["input"] = {}
        into.append(VendorBlock(dialect=_DIALECT, value=msgspec.Raw(encode(value)), part=self._part_of(block)))

    def _bound(self, value: Any) -> None:  # noqa: ANN401 - any JSON
        self._kept_bytes += max(LEAST_BYTES, len(encode(value)))
        if self._kept_bytes > MAX_KEPT_BYTES:
            raise ProviderError(code="response_too_large")


def _type_of(value: dict[str, Any]) -> str:
    """Return the type of a block; where it has none, the one that its fields belong to."""
    given = value.get("type")
    if given and isinstance(given, str):
        return given
    return next((kind for name, kind in _TYPES.items() if value.get(name) is not None), "text")


def _arguments(value: Any) -> str:  # noqa: ANN401 - any JSON
    """Return the arguments of a call whose input came at its begin, or not at all."""
    text = json_text(value).strip()
    return text or "{}"
