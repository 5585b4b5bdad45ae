"""A request's own view of the log that answers it."""

from collections.abc import Callable, Sequence

from actors.log.event_log import EventLog, Wake
from actors.log.partial_text import PartialText
from protocol.errors import UnrecoverablePosition
from protocol.events import Completed, Entry, Event, EventStream, Failed, Snapshot
from protocol.requests import Status


def status_of(stream: EventStream) -> Status:
    """Return the status of the stream's request; it is ``pending`` until the log has more than its first entry."""
    if not stream.ended:
        return "running" if stream.offset > 1 else "pending"
    event = stream.since(stream.offset - 1)[0].event
    if isinstance(event, Completed):
        return "completed"
    return "failed" if isinstance(event, Failed) else "cancelled"


class RequestStream:
    """One request's view of a log that several requests may share: the log's entries, unless the request ends early.

    ::

        open --the log ends--> ended
           +---cut-----------> ended, with a terminal entry of its own; the log goes on

    Implements ``protocol.events.EventStream``. The view itself reads the log and never writes to it.

    Args:
        request_id: the request's id.
        log: the log to read.
        on_followers: called with the id and 1 when the first follower comes, and with the id and 0 when the last one
            has left.
        partial: whether native readers also get the JSON value so far.
    """

    __slots__ = ("_cut", "_listeners", "_on_followers", "_partial", "log", "request_id")

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
        self._partial = PartialText() if partial else None

    @property
    def epoch(self) -> str:
        """The log's epoch."""
        return self.log.epoch

    @property
    def offset(self) -> int:
        """The offset of this view's last entry."""
        return self._cut.offset if self._cut else self.log.offset

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
        """The number of followers now."""
        return len(self._listeners)

    def since(self, after: int) -> Sequence[Entry]:
        """Return entries above ``after``; see ``EventStream``."""
        cut = self._cut
        if cut is None:
            return self.log.since(after)
        if after > cut.offset:
            message = f"offset {after} is beyond the end, {cut.offset}"
            raise UnrecoverablePosition(message)
        if after >= cut.offset - 1:
            return [cut][after - cut.offset + 1 :]
        shared, count = self.log.since(after), cut.offset - 1 - after
        return shared if len(shared) < count else [*shared[:count], cut]

    def snapshot(self) -> Snapshot:
        """Return all content so far, merged."""
        return self.log.snapshot(self._cut.offset - 1 if self._cut else None)

    def partial(self, new: int | None = None) -> bytes | None:
        """Return the JSON value of the text so far; see ``EventStream``."""
        return None if self._partial is None else self._partial.value(self.snapshot().text, new)

    def cut(self, event: Event) -> None:
        """End this view with ``event``, but not the log; an ended view stays as it is. Only the run calls it."""
        if self.ended:
            return
        self._cut = Entry(self.log.offset + 1, event)
        self._wake()

    def listen(self, wake: Wake) -> None:
        """Call ``wake`` after every change; each listener counts as a follower."""
        if not self._listeners:
            self.log.listen(self._wake)
            if self._on_followers:
                self._on_followers(self.request_id, 1)
        self._listeners[wake] = None

    def unlisten(self, wake: Wake) -> None:
        """Stop calling ``wake``; an unknown one is ignored."""
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
