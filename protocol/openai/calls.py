"""Tool calls of a streamed answer in OpenAI's dialect: keeps them apart, whole and answerable."""

from typing import Any, Final

import msgspec

from protocol.errors import ProviderError
from protocol.events import ToolCallDelta
from protocol.ids import call_id
from protocol.llm import Extra
from protocol.reading.loose import extra_of, json_text, name_of, place_of, split_half
from protocol.upstream import Deltas

KNOWN: Final = frozenset({"index", "id", "type", "function"})
MAX_CALLS: Final = 256
MAX_REPEATED: Final = 16 * 1024  # characters of arguments up to which a call is looked at for being whole
MAX_EXTRA_BYTES: Final = 1024 * 1024  # of all calls together

_HALF: Final = "\ufffd"


def may_begin(entry: Any) -> bool:  # noqa: ANN401 - any JSON
    """Whether a piece may begin a call: it has an id or a name."""
    if not isinstance(entry, dict):
        return False
    function = entry.get("function")
    return bool(entry.get("id") or (isinstance(function, dict) and function.get("name")))


class _Call:
    """A call: what has come of it, and what of it has been given on.

    ::

        held ──first piece of arguments, another part, or the end──► begun

    Attributes:
        number: among the answer's calls.
        part: the index of its part.
        index: the upstream's; None where it has none.
        id: the upstream's; empty for none.
        name: the tool's, which may come in pieces while the call is held.
        pieces: of the arguments.
        extra: further fields that have not been given on.
        half: the first half of a surrogate pair at the end of the arguments.
        emptied: whether its arguments came as an empty object, which may be only a placeholder.
        begun: whether its id and name have been given on.
    """

    __slots__ = ("begun", "emptied", "extra", "half", "id", "index", "name", "number", "part", "pieces")

    def __init__(self, number: int, part: int, index: int | None) -> None:
        self.number = number
        self.part = part
        self.index = index
        self.id = self.name = self.half = ""
        self.pieces: list[str] = []
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
        if self.pieces[-1].rstrip()[-1:] not in ("}", "]"):
            return False
        text = self.arguments
        if len(text) > MAX_REPEATED:
            return False
        try:
            msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return False
        return True


class CallReader:
    """Sorts the pieces of an answer's calls, which upstreams mark by index, by id, by name, or by nothing.

    A new id at a known index begins a new call, and so does another name after whole arguments. Pieces without an index
    go on with the call of their id, or with the last one. Missing and repeated ids are made up. A piece of no known
    call, without id and name, is dropped.
    """

    __slots__ = ("_calls", "_extra_bytes", "_held", "_ids")

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._ids: set[str] = set()
        self._held: _Call | None = None
        self._extra_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._calls)

    @property
    def holds(self) -> bool:
        """Whether a call has not been given on that has begun."""
        return self._held is not None

    def add(self, entry: Any, part: int, into: Deltas) -> bool:  # noqa: ANN401 - any JSON
        """Add a piece of a call.

        Args:
            entry: the piece.
            part: the index of a part that would begin now.
            into: the content.

        Returns:
            Whether it began a new call.

        Raises:
            ProviderError: ``response_too_large``: there are too many calls.
        """
        if not isinstance(entry, dict):
            return False
        function = entry.get("function")
        if not isinstance(function, dict):
            function = {}
        index, id_, name = place_of(entry.get("index")), name_of(entry.get("id")), name_of(function.get("name"))
        arguments = json_text(function.get("arguments"))
        call = self._find(index, id_, name, arguments)
        begins = call is None
        if call is None:
            if not id_ and not name:
                return False
            call = self._begin(index, part, into)
        self._learn(call, id_, name, entry)
        if arguments:
            self._add_arguments(call, arguments, into)
        return begins

    def release(self, into: Deltas) -> None:
        """Give on the call that is held: another part begins."""
        call, self._held = self._held, None
        if call is not None and call.name:
            self._give(call, "", into)
        elif call is not None:
            self._held = call  # its name may still come

    def close(self, into: Deltas) -> None:
        """Give on what is left: calls without arguments have an empty object.

        Raises:
            ProviderError: ``provider_bad_response``: a call has arguments and no name.
        """
        self._held = None
        for call in self._calls:
            rest = _HALF if call.half else ""
            call.half = ""
            if not call.name:
                if call.pieces:
                    raise ProviderError(code="provider_bad_response")
                continue
            if not call.pieces and not rest:
                rest = "{}"
                call.pieces.append(rest)
            if rest or not call.begun:
                self._give(call, rest, into)

    def _find(self, index: int | None, id_: str, name: str, arguments: str) -> _Call | None:
        """Return the call that a piece belongs to; None where it begins one, or belongs to none."""
        if not self._calls:
            return None
        same = self._by_id(id_) if id_ else None
        if index is None:
            return same if id_ else self._last_for(name)
        at = next((call for call in reversed(self._calls) if call.index == index), None)
        if at is None:
            if same is not None and not name:
                return same
            last = self._calls[-1]
            return last if arguments and not id_ and not name and not last.whole else None
        if id_ and at.id and at.id != id_:
            return same if same is not None and not name else None
        return at if id_ and at.id else self._next_of(at, name, arguments)

    def _by_id(self, id_: str) -> _Call | None:
        return next((call for call in reversed(self._calls) if call.id == id_), None)

    def _last_for(self, name: str) -> _Call | None:
        """Return the last call where a piece without index and id goes on with it; None where it begins another."""
        call = self._calls[-1]
        return call if not name or not call.name or (name == call.name and call.pieces and not call.whole) else None

    @staticmethod
    def _next_of(call: _Call, name: str, arguments: str) -> _Call | None:
        """Return the call where a piece at its index goes on with it; None where its name begins another."""
        if not name or not call.name or not (call.pieces or call.emptied):
            return call
        if not call.whole:
            return call if name == call.name else None
        return call if name == call.name and arguments in ("", "{}", call.arguments) else None

    def _begin(self, index: int | None, part: int, into: Deltas) -> _Call:
        self.release(into)
        if len(self._calls) >= MAX_CALLS:
            raise ProviderError(code="response_too_large")
        call = self._held = _Call(len(self._calls), part, index)
        self._calls.append(call)
        return call

    def _learn(self, call: _Call, id_: str, name: str, entry: dict[str, Any]) -> None:
        if not call.begun:
            call.id = call.id or id_
            call.name = name if name.startswith(call.name) else call.name + name
        if not entry.keys() <= KNOWN:
            extra = extra_of("openai", entry, KNOWN)
            self._extra_bytes += len(json_text(extra))
            if self._extra_bytes > MAX_EXTRA_BYTES:
                raise ProviderError(code="response_too_large")
            call.extra = {**call.extra, **extra}

    def _add_arguments(self, call: _Call, arguments: str, into: Deltas) -> None:
        if not call.pieces and (blank := arguments.strip()) in ("", "{}"):
            call.emptied = call.emptied or blank != ""
            return  # nothing yet: more may come, and the end gives the empty object
        if call.pieces and arguments[0] in "{[" and call.whole:
            return  # all of it once more
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
        shown = call.id if call.id and call.id not in self._ids else call_id()
        self._ids.add(shown)
        into.append(
            ToolCallDelta(index=call.number, id=shown, name=call.name, arguments=arguments, part=call.part, extra=extra)
        )
