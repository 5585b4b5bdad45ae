"""Tool calls of a streamed answer in OpenAI's dialect: keeps them apart, whole and answerable."""

from typing import Any, Final

import msgspec

from protocol.errors import ProviderError
from protocol.events import ToolCallDelta
from protocol.ids import call_id
from protocol.llm import Extra
from protocol.openai.call_pieces import CallPiece, piece_of
from protocol.openai.vendor_fields import folded
from protocol.reading.loose import json_text, split_half
from protocol.upstream import Deltas

MAX_CALLS: Final = 256
MAX_REPEATED: Final = 16 * 1024  # characters of arguments up to which a call is looked at for being whole
MAX_EXTRA_BYTES: Final = 1024 * 1024  # of all calls together
LEAST_EXTRA: Final = 1024  # bytes that the further fields of one piece count at least
MAX_NAME: Final = 1024  # characters of a tool's name
MAX_ID: Final = 64 * 1024  # characters of a call's id: some proxies put a thought's signature into it

_HALF: Final = "\ufffd"
_OWN: Final = "openai"


class _Call:
    """A call: what has come of it, and what of it has been given on.

    ::

        held ──first piece of arguments, another part, or the end──► begun

    A call of another kind than a function's is given on as one piece: when another part begins, or at the end.

    Attributes:
        number: among the answer's calls.
        part: the index of its part.
        index: the upstream's; None where it has none.
        id: the upstream's; empty for none.
        name: the tool's, which may come in pieces while the call is held.
        pieces: of the arguments.
        again: what came after whole arguments and may be them once more.
        kind: of a call of another kind; empty for a function's.
        bodies: the pieces of such a call.
        extra: further fields that have not been given on.
        half: the first half of a surrogate pair at the end of the arguments.
        emptied: whether its arguments came as an empty object, which may be only a placeholder.
        begun: whether its id and name have been given on.
    """

    __slots__ = (
        "again",
        "begun",
        "bodies",
        "emptied",
        "extra",
        "half",
        "id",
        "index",
        "kind",
        "name",
        "number",
        "part",
        "pieces",
    )

    def __init__(self, number: int, part: int, index: int | None, kind: str) -> None:
        self.number = number
        self.part = part
        self.index = index
        self.kind = kind
        self.id = self.name = self.half = self.again = ""
        self.pieces: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.extra: Extra = {}
        self.emptied = self.begun = False

    @property
    def arguments(self) -> str:
        """The arguments so far."""
        text = "".join(self.pieces)
        self.pieces = [text] if text else []
        return text

    @property
    def whole(self) -> bool:
        """Whether the arguments are whole JSON, so that more would be too much; False also for very long ones."""
        if not self.pieces:
            return self.emptied
        return self.pieces[-1].rstrip()[-1:] in ("}", "]") and _is_whole(self.arguments)

    def has(self, arguments: str) -> bool:
        """Whether these are its whole arguments once more; an empty object adds nothing to them."""
        return arguments.strip() in ("", "{}") or _same(arguments, self.arguments)


class CallReader:
    """Sorts the pieces of an answer's calls, which upstreams mark by index, by id, by name, or by nothing.

    A new id at a known index begins a new call, and so do another name, and another object after whole arguments.
    Pieces without an index go on with the call of their id, or with the last one; two of them with names in one list
    are two calls. Missing and repeated ids are made up. A piece of no known call, which says nothing, is dropped.
    """

    __slots__ = ("_calls", "_extra_bytes", "_held", "_ids", "_named")

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._ids: set[str] = set()
        self._held: _Call | None = None
        self._extra_bytes = 0
        self._named: list[_Call] = []  # by pieces of the list that is read

    def __bool__(self) -> bool:
        return bool(self._calls)

    @property
    def holds(self) -> bool:
        """Whether a call has not been given on that has begun."""
        return self._held is not None

    @property
    def size(self) -> int:
        """The number of characters of all arguments and of all further fields so far, about."""
        return self._extra_bytes + sum([len(call.arguments) for call in self._calls])

    def begin_list(self) -> None:
        """Begin a list of pieces."""
        self._named.clear()

    def add(self, piece: CallPiece, part: int, into: Deltas) -> bool:
        """Add a piece of a call.

        Args:
            piece: the piece.
            part: the index of a part that would begin now.
            into: the content.

        Returns:
            Whether it began a new call.

        Raises:
            ProviderError: ``response_too_large``: there are too many calls; ``provider_bad_response``: the piece
                belongs to a call that has been given on, or has no form of a call's.
        """
        call = self._find(piece)
        begins = call is None
        if call is None:
            if not piece.names_call and piece.arguments.strip() in ("", "{}"):
                if piece.extra:
                    raise ProviderError(code="provider_bad_response")
                return False
            call = self._begin(piece.index, part, into, piece.kind)
        if piece.name:
            self._named.append(call)
        self._learn(call, piece)
        if not piece.arguments:
            return begins
        if call.pieces and piece.arguments.strip() and (call.again or self._begins_again(call, piece.arguments)):
            return self._add_again(call, piece.arguments, part, into)
        self._add_arguments(call, piece.arguments, into)
        return begins

    def knows(self, entries: list[Any]) -> bool:
        """Whether a whole list of calls is the one that has been read: the same tools with the same arguments."""
        pieces = [piece for entry in entries if (piece := piece_of(entry)) is not None]
        return len(pieces) == len(self._calls) and all(map(_repeats, pieces, self._calls))

    def release(self, into: Deltas) -> None:
        """Give on the call that is held: another part begins."""
        call, self._held = self._held, None
        if call is not None and call.kind:
            self._give_other(call, into)
        elif call is not None and call.name:
            self._give(call, "", into)
        elif call is not None:
            self._held = call  # its name may still come

    def close(self, part: int, into: Deltas, *, cut: bool) -> int:
        """Give on what is left: calls without arguments have an empty object.

        Args:
            part: the index of the next part.
            into: the content.
            cut: whether the answer was cut short, so that the name of its last call may be missing.

        Returns:
            How many calls it began.

        Raises:
            ProviderError: ``provider_bad_response``: a call has no name.
        """
        self._held = None
        calls = [*self._calls]
        for call in calls:
            if call.kind:
                self._give_other(call, into)
                continue
            if not call.name:
                if cut and call is calls[-1]:
                    continue
                raise ProviderError(code="provider_bad_response")
            rest = _HALF if call.half else ""
            call.half = ""
            if not call.pieces and not rest:
                rest = "{}"
                call.pieces.append(rest)
            if rest or not call.begun:
                self._give(call, rest, into)
        for call in calls:
            again, call.again = call.again, ""
            if again and not call.arguments.lstrip().startswith(again.strip()):
                self._begin_second(call, again, part + len(self._calls) - len(calls), into)
        return len(self._calls) - len(calls)

    def _find(self, piece: CallPiece) -> _Call | None:
        """Return the call that a piece belongs to; None where it begins one, or belongs to none."""
        if not self._calls:
            return None
        call = self._place(piece)
        return None if call is not None and piece.kind and not call.kind else call

    def _place(self, piece: CallPiece) -> _Call | None:
        index, id_, name, arguments = piece.index, piece.id, piece.name, piece.arguments
        same = self._by_id(id_) if id_ else None
        if index is None:
            if same is None:
                return None if id_ else self._last_for(name)
            other_name = bool(name and same.name) and not name.startswith(same.name)
            return None if other_name or (name and same in self._named) else self._next_of(same, name, arguments)
        at = next((call for call in reversed(self._calls) if call.index == index), None)
        if at is None:
            if same is not None and not name:
                return same
            last = self._calls[-1]
            return last if arguments and not id_ and not name and not last.whole else None
        if id_ and at.id and at.id != id_:
            return same if same is not None and not name else None
        placeholder = id_ and at.id and name == at.name and not at.pieces
        return at if placeholder else self._next_of(at, name, arguments)

    def _by_id(self, id_: str) -> _Call | None:
        return next((call for call in reversed(self._calls) if call.id == id_), None)

    def _last_for(self, name: str) -> _Call | None:
        """Return the last call where a piece without index and id goes on with it; None where it begins another."""
        call = self._calls[-1]
        return call if not name or not call.name or (name == call.name and call.pieces and not call.whole) else None

    @staticmethod
    def _next_of(call: _Call, name: str, arguments: str) -> _Call | None:
        """Return the call where a piece with its id or index goes on with it; None where its name begins another."""
        if not name or not call.name or call.kind or not (call.pieces or call.emptied):
            return call
        if not call.whole:
            return call if name == call.name else None
        return call if name == call.name and call.has(arguments) else None

    def _begin(self, index: int | None, part: int, into: Deltas, kind: str = "") -> _Call:
        self.release(into)
        if len(self._calls) >= MAX_CALLS:
            raise ProviderError(code="response_too_large")
        call = self._held = _Call(len(self._calls), part, index, kind)
        self._calls.append(call)
        return call

    def _learn(self, call: _Call, piece: CallPiece) -> None:
        if piece.kind:
            if call.begun:
                raise ProviderError(code="provider_bad_response")
            self._bound(piece.body)
            call.bodies.append(piece.body)
        if not call.begun:
            call.id = call.id or piece.id
            call.name = piece.name if piece.name.startswith(call.name) else call.name + piece.name
            if len(call.name) > MAX_NAME or len(call.id) > MAX_ID:
                raise ProviderError(code="response_too_large")
        if piece.extra:
            self._bound(piece.extra)
            call.extra = {**call.extra, **piece.extra}

    def _bound(self, value: Any) -> None:  # noqa: ANN401 - any JSON
        self._extra_bytes += max(LEAST_EXTRA, len(json_text(value)))
        if self._extra_bytes > MAX_EXTRA_BYTES:
            raise ProviderError(code="response_too_large")

    @staticmethod
    def _begins_again(call: _Call, arguments: str) -> bool:
        return arguments.lstrip()[0] in "{[" and call.whole

    def _add_again(self, call: _Call, arguments: str, part: int, into: Deltas) -> bool:
        """Add to what came after whole arguments: they come once more, or are those of a second call."""
        call.again += arguments
        if len(call.again) > MAX_REPEATED:
            raise ProviderError(code="provider_bad_response")
        if not _is_whole(call.again):
            return False
        again, call.again = call.again, ""
        if _same(again, call.arguments):
            return False
        self._begin_second(call, again, part, into)
        return True

    def _begin_second(self, call: _Call, arguments: str, part: int, into: Deltas) -> None:
        """Begin another call of the same tool."""
        second = self._begin(call.index, part, into)
        second.id, second.name = call.id, call.name
        self._add_arguments(second, arguments, into)

    def _add_arguments(self, call: _Call, arguments: str, into: Deltas) -> None:
        if not call.pieces and (blank := arguments.strip()) in ("", "{}"):
            call.emptied = call.emptied or blank != ""
            return  # nothing yet: more may come, and the end gives the empty object
        text, call.half = split_half(call.half + arguments)
        if not text:
            return
        call.pieces.append(text)
        if call.begun or call.name:
            self._give(call, text if call.begun else call.arguments, into)

    def _give(self, call: _Call, arguments: str, into: Deltas) -> None:
        extra, call.extra = call.extra, {}
        if call.begun:
            into.append(ToolCallDelta(index=call.number, arguments=arguments, part=call.part, extra=extra))
            return
        call.begun = True
        if call is self._held:
            self._held = None
        into.append(
            ToolCallDelta(
                index=call.number,
                id=self._new_id(call),
                name=call.name,
                arguments=arguments,
                part=call.part,
                extra=extra,
            )
        )

    def _give_other(self, call: _Call, into: Deltas) -> None:
        """Give on a call of another kind: its extra fields are the whole call."""
        if call.begun:
            return
        call.begun = True
        body = folded(call.bodies)
        inner = body.get(call.kind)
        fields = inner if isinstance(inner, dict) else {}
        shown = self._new_id(call)
        extra: Extra = {_OWN: {"id": shown, "type": call.kind, **body}}
        arguments = json_text({"input": fields.get("input")})
        name = call.name or call.kind
        into.append(
            ToolCallDelta(index=call.number, id=shown, name=name, arguments=arguments, part=call.part, extra=extra)
        )

    def _new_id(self, call: _Call) -> str:
        shown = call.id if call.id and call.id not in self._ids else call_id()
        self._ids.add(shown)
        return shown


def _repeats(piece: CallPiece, call: _Call) -> bool:
    if piece.kind or call.kind:
        return piece.kind == call.kind and piece.name == call.name and folded([piece.body]) == folded(call.bodies)
    return piece.name == call.name and (call.has(piece.arguments) or not call.whole)


def _is_whole(text: str) -> bool:
    if len(text) > MAX_REPEATED:
        return False
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _same(text: str, other: str) -> bool:
    """Whether two texts are the same JSON."""
    if text == other:
        return True
    try:
        return bool(msgspec.json.decode(text) == msgspec.json.decode(other))
    except (msgspec.DecodeError, RecursionError):
        return False
