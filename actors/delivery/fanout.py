"""Fan-out from topics to sockets: one write per socket and loop tick, and one integer per slow reader."""

import logging
import random
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from typing import Final

from actors.delivery.topic import LOST, SNAPSHOT, FrameEncoder, Page, RequestTopic, Topic
from actors.fair_shares import FairShares
from actors.log.follow import open_at
from actors.requests.stream import status_of
from protocol.errors import PROBLEMS, Overloaded, ShuttingDown, TidegateError
from protocol.events import EventStream, Position
from protocol.hub import HubStats, Socket, Subscribe
from protocol.websocket.out import ack_json, disconnect_json, error_json

STALL_LIMIT: Final = 30.0  # seconds without progress after which a slow socket is closed
TOTAL_SUBSCRIPTIONS: Final = 200_000  # of all sockets
RETRY_AFTER: Final = 1.0  # seconds
SLOW: Final = "slow_consumer"

_log = logging.getLogger("tidegate.hub")


class _Lag:
    """A socket above the high-water mark: the fewest bytes it has had buffered, and since when."""

    __slots__ = ("buffered", "since")

    def __init__(self, buffered: int, since: float) -> None:
        self.buffered = buffered
        self.since = since


class Fanout:
    """All topics and their readers.

    A socket's states; it stays subscribed in both, and a lagging one is skipped::

        reading --buffered > high_water--> lagging --buffered <= high_water / 2--> reading
                                              +----no progress for STALL_LIMIT---> closed (4008)

    Args:
        encode: turns a frame's JSON into wire bytes.
        high_water: bytes buffered in a socket above which it lags.
        max_subscriptions: the most of one socket.
        subscriptions: those of all sockets, shared by tenants; None for the default.
        clock: seconds, monotonic.
        call_soon: calls ``flush`` after the current loop tick.
        on_lag: called when the first socket lags; from then on call ``check_lagging`` regularly until it returns False.
    """

    def __init__(
        self,
        encode: FrameEncoder,
        *,
        high_water: int,
        max_subscriptions: int,
        subscriptions: FairShares | None = None,
        clock: Callable[[], float],
        call_soon: Callable[[Callable[[], None]], object],
        on_lag: Callable[[], object],
    ) -> None:
        self._encode = encode
        self._high_water = high_water
        self._max_subscriptions = max_subscriptions
        if subscriptions is None:
            subscriptions = FairShares(TOTAL_SUBSCRIPTIONS, rule="reserve")
        self._subscriptions = subscriptions
        self._tenants: dict[Socket, str] = {}  # of the sockets with subscriptions, who pays for them
        self._clock = clock
        self._call_soon = call_soon
        self._on_lag = on_lag
        self._requests: dict[tuple[str, str], RequestTopic] = {}  # by request id and epoch
        self._sockets: dict[Socket, dict[Hashable, Topic]] = {}
        self._dirty: dict[Topic, None] = {}
        self._outgoing: dict[Socket, bytes] = {}
        self._lagging: dict[Socket, _Lag] = {}
        self._scheduled = False
        self._closing = False
        self._disconnect: tuple[str, float] | None = None  # of sockets without a request: the reason and the spread
        self._dismissed: dict[Socket, None] = {}  # to be disconnected after the next delivery

    # ---------------------------------------------------------------------------------------------------- subscriptions

    def subscribe(self, message: Subscribe) -> None:
        """Subscribe a socket to a request. Its acknowledgement and the entries so far are sent after this tick.

        Raises:
            UnrecoverablePosition: see ``open_at``.
            Overloaded: as ``admit``.
            ShuttingDown: the hub is closing its sockets.
        """
        socket, stream = message.socket, message.stream
        request_id = stream.request_id
        self.admit(socket, (request_id,), message.tenant)
        opening = open_at(stream, message.after, message.mode)
        cursor = SNAPSHOT if opening.snapshot else opening.after
        self.unsubscribe(socket, request_id)
        if message.ack_id is not None:
            position = Position(stream.epoch, stream.offset)
            self.send(
                socket, ack_json(message.ack_id, request_id, position, status_of(stream), recovered=opening.recovered)
            )
        if not stream.ended or cursor != stream.offset:
            self.follow(socket, self._topic(stream), cursor, message.tenant)
        if _log.isEnabledFor(logging.DEBUG):
            subscribers = self._requests.get((request_id, stream.epoch))
            count = 0 if subscribers is None else len(subscribers.readers)
            fields = {"request_id": request_id, "after": None if opening.snapshot else cursor, "subscribers": count}
            _log.debug("subscribed", extra={"fields": fields})

    def admit(self, socket: Socket, names: Iterable[Hashable], tenant: str) -> None:
        """Check that ``socket`` may subscribe to these names, too; its first subscription makes it the tenant's.

        Raises:
            Overloaded: ``connection_limit``: the socket has too many; ``overloaded``: the tenant's sockets have.
            ShuttingDown: the hub is closing its sockets.
        """
        if self._closing:
            raise ShuttingDown
        followed = self._sockets.get(socket, {})
        new = sum(name not in followed for name in names)
        if len(followed) + new > self._max_subscriptions:
            detail = f"a socket has {self._max_subscriptions} subscriptions at most"
            raise Overloaded(detail, code="connection_limit")
        owner = self._tenants.get(socket, tenant)
        if not self._subscriptions.has_room(owner, new):
            detail = f"there are {self._subscriptions.held(owner)} subscriptions, which is the most"
            raise Overloaded(detail, retry_after=RETRY_AFTER)

    def follow(self, socket: Socket, topic: Topic, cursor: int, tenant: str) -> None:
        """Add ``socket`` as a reader of ``topic`` after ``cursor``. It was admitted, and has none of that name."""
        self._subscriptions.take(self._tenants.setdefault(socket, tenant))
        topic.readers[socket] = cursor
        self._sockets.setdefault(socket, {})[topic.name] = topic
        self.changed(topic)

    def send(self, socket: Socket, payload: bytes) -> None:
        """Send a frame to one socket after this tick, before all frames of its topics."""
        self._outgoing[socket] = self._outgoing.get(socket, b"") + self._encode(payload)
        self._schedule()

    def unsubscribe(self, socket: Socket, name: Hashable) -> bool:
        """End a socket's subscription by name (a request's is its id); return whether there was one."""
        topic = self._sockets.get(socket, {}).get(name)
        if topic is not None:
            self._drop(socket, topic)
            self._dismiss(socket)
        return topic is not None

    def unsubscribe_requests(self, socket: Socket, error: TidegateError) -> int:
        """End a socket's subscriptions to requests, each with ``error``; return their number."""
        ended = [topic for topic in self._sockets.get(socket, {}).values() if isinstance(topic, RequestTopic)]
        for topic in ended:
            self._drop(socket, topic)
            self.send(socket, error_json(error, request_id=topic.stream.request_id, terminal=True))
        if ended:
            self._dismiss(socket)
        return len(ended)

    def remove(self, socket: Socket) -> None:
        """Remove a socket with all its subscriptions and unsent frames."""
        for topic in tuple(self._sockets.get(socket, {}).values()):
            self._drop(socket, topic)
        self._outgoing.pop(socket, None)
        self._dismissed.pop(socket, None)

    def stats(self) -> HubStats:
        """Return the numbers of sockets, subscriptions and requests."""
        return HubStats(
            sockets=len(self._sockets),
            subscriptions=sum(len(topics) for topics in self._sockets.values()),
            requests=len(self._requests),
        )

    # -------------------------------------------------------------------------------------------------------- delivery

    def changed(self, topic: Topic) -> None:
        """Deliver what is new in ``topic`` after this tick."""
        self._dirty[topic] = None
        self._schedule()

    def flush(self) -> None:
        """Deliver all changed topics; the scheduled call."""
        self._scheduled = False
        self.deliver()

    def deliver(self) -> None:
        """Write to each reader of each changed topic what it has room for, in one write per socket."""
        changed, self._dirty = self._dirty, {}
        outgoing, self._outgoing = self._outgoing, {}
        try:
            while changed:
                self._advance(changed.popitem()[0], outgoing)
        finally:
            for socket, frames in outgoing.items():
                try:
                    socket.write(frames)
                except RuntimeError:  # the connection is lost, and ``SocketClosed`` is still to come
                    self.remove(socket)
            self._dirty.update(changed)
            if self._dirty:
                self._schedule()
            if self._dismissed:
                self._disconnect_dismissed()

    def check_lagging(self) -> bool:
        """Resume sockets that have drained, close those that have stalled, and return whether any still lags."""
        now = self._clock()
        for socket, lag in tuple(self._lagging.items()):
            buffered = socket.buffered
            if buffered <= self._high_water // 2:
                del self._lagging[socket]
                for topic in self._sockets.get(socket, {}).values():
                    self.changed(topic)
            elif buffered < lag.buffered:
                lag.buffered, lag.since = buffered, now
            elif now - lag.since >= STALL_LIMIT:
                self.close_socket(socket, PROBLEMS[SLOW].close, SLOW)
        return bool(self._lagging)

    def disconnect_all(self, reason: str, spread: float) -> int:
        """Close every socket, and tell it to reconnect after up to ``spread`` seconds; return the number of sockets."""
        self._closing, self._disconnect = True, None
        self.flush()
        return self._disconnect_sockets(tuple(self._sockets), reason, spread)

    def disconnect_idle(self, reason: str, spread: float) -> frozenset[Socket]:
        """Disconnect the sockets that follow no request, and from now on each other one after its last request.

        Returns the sockets that still follow a request.
        """
        self._disconnect = (reason, spread)
        self.flush()
        following = frozenset(socket for socket in self._sockets if self._follows_request(socket))
        self._disconnect_sockets(tuple(socket for socket in self._sockets if socket not in following), reason, spread)
        return following

    def close_all(self, code: int, reason: str) -> None:
        """Close every socket, after an error that lost their state."""
        self._closing = True
        for socket in tuple(self._sockets):
            self.close_socket(socket, code, reason)

    def close_socket(self, socket: Socket, code: int, reason: str, last_frame: bytes = b"") -> None:
        """Remove a socket, write its last frame if there is one, and close it."""
        self.remove(socket)
        with suppress(RuntimeError):  # as in ``deliver``
            if last_frame:
                socket.write(last_frame)
            socket.close(code, reason)

    # --------------------------------------------------------------------------------------------------------- internal

    def _disconnect_sockets(self, sockets: Sequence[Socket], reason: str, spread: float) -> int:
        for index, socket in enumerate(sockets):
            delay = spread * (index + random.random()) / len(sockets)  # noqa: S311 - jitter is no secret
            self.close_socket(socket, 1000, reason, self._encode(disconnect_json(reason, delay)))
        return len(sockets)

    def _dismiss(self, socket: Socket) -> None:
        """Disconnect a socket after this tick, where it follows no request then, and idle sockets are disconnected."""
        if self._disconnect is not None:
            self._dismissed[socket] = None
            self._schedule()

    def _disconnect_dismissed(self) -> None:
        sockets, self._dismissed = self._dismissed, {}
        if self._disconnect is not None:
            self._disconnect_sockets([one for one in sockets if not self._follows_request(one)], *self._disconnect)

    def _follows_request(self, socket: Socket) -> bool:
        return any(isinstance(topic, RequestTopic) for topic in self._sockets.get(socket, {}).values())

    def _topic(self, stream: EventStream) -> RequestTopic:
        key = (stream.request_id, stream.epoch)
        topic = self._requests.get(key)
        if topic is None:
            topic = RequestTopic(stream, self._encode, on_change=self.changed, on_close=self._topic_closed)
            self._requests[key] = topic
        return topic

    def _topic_closed(self, topic: RequestTopic) -> None:
        del self._requests[topic.stream.request_id, topic.stream.epoch]

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self.flush)

    def _advance(self, topic: Topic, outgoing: dict[Socket, bytes]) -> None:
        readers, behind, end = topic.readers, topic.behind, topic.end
        lagging, mark = self._lagging, self._high_water
        pages: dict[tuple[int, bool], Page] = {}
        shared: Page | None = None
        shared_by = end  # the cursor of ``shared``: most readers have the same one, and need no look-up in ``pages``
        ended: list[Socket] = []
        for socket, cursor in readers.items():
            if cursor == end:
                continue
            held = outgoing.get(socket, b"")
            if socket in lagging or socket.buffered + len(held) > mark:
                behind.add(socket)
                self._lag(socket)
                continue
            if shared is None or cursor != shared_by or behind:
                shared, shared_by = topic.page(cursor, merged=socket in behind, shared=pages), cursor
            frames, reached, final = shared
            outgoing[socket] = held + frames if held else frames
            readers[socket] = reached
            if final:
                ended.append(socket)
            elif reached != end:
                self._dirty[topic] = None
            elif behind:
                behind.discard(socket)
        if ended:
            self._end(topic, ended, outgoing)

    def _end(self, topic: Topic, ended: list[Socket], outgoing: dict[Socket, bytes]) -> None:
        """End the subscriptions whose last frames are on their way; close the sockets of readers that are lost."""
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("fanned_out", extra={"fields": {"subscribers": len(ended), **topic.ending()}})
        for socket in ended:
            if topic.readers[socket] == LOST:
                del outgoing[socket]
                self.close_socket(socket, PROBLEMS[SLOW].close, SLOW)
            else:
                self._drop(socket, topic)
                self._dismiss(socket)

    def _lag(self, socket: Socket) -> None:
        if socket not in self._lagging:
            self._lagging[socket] = _Lag(socket.buffered, self._clock())
            if len(self._lagging) == 1:
                self._on_lag()

    def _drop(self, socket: Socket, topic: Topic) -> None:
        followed = self._sockets[socket]
        del followed[topic.name]
        self._subscriptions.give_back(self._tenants[socket])
        if not followed:
            del self._sockets[socket], self._tenants[socket]
            self._lagging.pop(socket, None)
        del topic.readers[socket]
        topic.behind.discard(socket)
        if not topic.readers:
            self._dirty.pop(topic, None)
            topic.close()
