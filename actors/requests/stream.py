"""A request's own view of the log that answers it."""

from collections.abc import Callable, Sequence

from actors.log.event_log import EventLog, Wake
from actors.log.partial_text import PartialText
from protocol.errors import UnrecoverablePosition
from protocol.events import Completed, Entry, Event, EventStream, Failed, Snapshot
from protocol.requests import Status


def status_of(stream: EventStream) -> Status:
    """Return how far the request is whose stream this is: ``pending`` until the model's side has been heard of."""
    if not stream.ended:
        return "running" if stream.offset > 1 else "pending"
    event = stream.since(stream.offset - 1)[0].event
    if isinstance(event, Completed):
        return "completed"
    return "failed" if isinstance(event, Failed) else "cancelled"


class RequestStream:
    """A request's view of a log that others may share: the same entries, unless the request leaves early.

    Implements ``protocol.events.EventStream``.

    Args:
        request_id: whose view it is.
        log: what it shows.
        on_followers: told of the number of followers whenever the first one comes or the last one goes.
        partial: whether its native readers get the JSON value so far.
    """

    __slots__ = ("_cut", "_cut_snapshot", "_listeners", "_on_followers", "_partial", "log", "request_id")

    def __init__(
        self,
        request_id: str,
        log: EventLog,
        *,
        on_followers: Callable[[str, int], None] | None = None,
        partial: bool = False,
    ) -> None:
        self.request_id = request_id
        self.log = log
        self._on_followers = on_followers
        self._listeners: dict[Wake, None] = {}
        self._cut: Entry | None = None
        self._cut_snapshot: Snapshot | None = None
        self._partial = PartialText() if partial else None

    @property
    def epoch(self) -> str:
        """The log's epoch."""
        return self.log.epoch

    @property
    def offset(self) -> int:
        """The offset of the last entry of this view."""
        return self._cut.offset if self._cut else self.log.offset

    @property
    def first(self) -> int:
        """The lowest offset that is still held entry by entry."""
        return min(self.log.first, self.offset) if self._cut else self.log.first

    @property
    def ended(self) -> bool:
        """Whether the last entry is terminal."""
        return self._cut is not None or self.log.ended

    @property
    def terminal(self) -> Entry | None:
        """The last entry, where this view has ended."""
        return self._cut or self.log.terminal

    @property
    def followers(self) -> int:
        """How many readers are attached now."""
        return len(self._listeners)

    def since(self, after: int) -> Sequence[Entry]:
        """Return the entries above ``after``. Raises ``UnrecoverablePosition`` where they are not, or not all, here."""
        cut = self._cut
        if cut is None:
            return self.log.since(after)
        if after > cut.offset:
            message = f"offset {after} is beyond the end, {cut.offset}"
            raise UnrecoverablePosition(message)
        if after >= cut.offset - 1:
            return [cut][after - cut.offset + 1 :]
        shared = self.log.since(after)
        return [*shared[: cut.offset - 1 - after], cut]

    def snapshot(self) -> Snapshot:
        """Return all content of this view so far, merged."""
        return self._cut_snapshot or self.log.snapshot()

    def partial(self, new: int | None = None) -> bytes | None:
        """Return the JSON value that all the text so far has; see ``EventStream``."""
        return None if self._partial is None else self._partial.value(self.snapshot().text, new)

    def cut(self, event: Event) -> None:
        """End this view with ``event`` and leave the log as it is. An ended view stays as it is."""
        if self.ended:
            return
        self._cut_snapshot = self.log.snapshot()
        self._cut = Entry(self.log.offset + 1, event)
        self._wake()

    def listen(self, wake: Wake) -> None:
        """Call ``wake`` after every change. Whoever listens is a follower."""
        if not self._listeners:
            self.log.listen(self._wake)
            if self._on_followers:
                self._on_followers(self.request_id, 1)
        self._listeners[wake] = None

    def unlisten(self, wake: Wake) -> None:
        """Take ``wake`` off again; unknown ones are ignored."""
        if self._listeners.pop(wake, self) is self or self._listeners:
            return
        self.log.unlisten(self._wake)
        if self._partial is not None and self.ended:
            self._partial = PartialText()
        if self._on_followers:
            self._on_followers(self.request_id, 0)

    def _wake(self) -> None:
        for wake in tuple(self._listeners):
            wake()
