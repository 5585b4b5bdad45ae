"""From many logs to many sockets: one write a socket and tick, and an integer for a reader that is slow."""

import random
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from typing import Final

from actors.delivery.topic import LOST, SNAPSHOT, FrameEncoder, Page, RequestTopic, Topic
from actors.log.follow import open_at
from actors.requests.stream import status_of
from protocol.errors import PROBLEMS, Overloaded, ShuttingDown
from protocol.events import EventStream, Position
from protocol.hub import HubStats, Socket, Subscribe
from protocol.websocket.out import ack_json, disconnect_json

STALL_LIMIT: Final = 30.0  # seconds without progress after which a slow socket is closed
SLOW: Final = "slow_consumer"


class _Lag:
    """A socket over the high-water mark: the least that it has had buffered, and since when."""

    __slots__ = ("buffered", "since")

    def __init__(self, buffered: int, since: float) -> None:
        self.buffered = buffered
        self.since = since


class Fanout:
    """All topics and their readers.

    Args:
        encode: turns a frame's JSON into what goes over the wire.
        high_water: bytes buffered in a socket above which it gets no more until it has drained to half of them.
        max_subscriptions: of one socket.
        clock: seconds, monotonic.
        soon: calls ``flush`` once the present tick is over.
        watch: is called when the first socket lags: ``poll`` has to be called from time to time until it returns False.
    """

    def __init__(
        self,
        encode: FrameEncoder,
        *,
        high_water: int,
        max_subscriptions: int,
        clock: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
        watch: Callable[[], object],
    ) -> None:
        self._encode = encode
        self._high_water = high_water
        self._max_subscriptions = max_subscriptions
        self._clock = clock
        self._soon = soon
        self._watch = watch
        self._requests: dict[tuple[str, str], RequestTopic] = {}  # by request id and epoch
        self._sockets: dict[Socket, dict[Hashable, Topic]] = {}
        self._dirty: dict[Topic, None] = {}
        self._outgoing: dict[Socket, bytes] = {}
        self._lagging: dict[Socket, _Lag] = {}
        self._scheduled = False
        self._leaving = False

    # ------------------------------------------------------------------------------------------------- who follows what

    def subscribe(self, message: Subscribe) -> None:
        """Begin to follow a request: the acknowledgement and what there is go out at the end of the tick.

        Raises:
            UnrecoverablePosition: see ``open_at``.
            Overloaded: ``connection_limit``.
            ShuttingDown: everybody has been told to leave.
        """
        socket, stream = message.socket, message.stream
        request_id = stream.request_id
        self.admit(socket, (request_id,))
        opening = open_at(stream, message.after, message.mode)
        cursor = SNAPSHOT if opening.snapshot else opening.after
        self.unsubscribe(socket, request_id)
        if message.ack_id is not None:
            position = Position(stream.epoch, stream.offset)
            self.say(
                socket, ack_json(message.ack_id, request_id, position, status_of(stream), recovered=opening.recovered)
            )
        if not stream.ended or cursor != stream.offset:
            self.follow(socket, self._topic(stream), cursor)

    def admit(self, socket: Socket, names: Iterable[Hashable]) -> None:
        """See whether ``socket`` may follow these, too.

        Raises:
            Overloaded: ``connection_limit``.
            ShuttingDown: everybody has been told to leave.
        """
        if self._leaving:
            raise ShuttingDown
        followed = self._sockets.get(socket, {})
        if len(followed) + sum(name not in followed for name in names) > self._max_subscriptions:
            detail = f"a socket has {self._max_subscriptions} subscriptions at most"
            raise Overloaded(detail, code="connection_limit")

    def follow(self, socket: Socket, topic: Topic, cursor: int) -> None:
        """Let ``socket``, which follows nothing of that name, have what comes in ``topic`` after ``cursor``."""
        topic.readers[socket] = cursor
        self._sockets.setdefault(socket, {})[topic.name] = topic
        self.changed(topic)

    def say(self, socket: Socket, payload: bytes) -> None:
        """Give one socket a frame of its own, at the end of the tick and before whatever comes of its topics."""
        self._outgoing[socket] = self._outgoing.get(socket, b"") + self._encode(payload)
        self._schedule()

    def unsubscribe(self, socket: Socket, name: Hashable) -> bool:
        """Stop following what has this name (a request's is its id), and say whether it was followed."""
        topic = self._sockets.get(socket, {}).get(name)
        if topic is not None:
            self._drop(socket, topic)
        return topic is not None

    def leave(self, socket: Socket) -> None:
        """Forget a socket."""
        for topic in tuple(self._sockets.get(socket, {}).values()):
            self._drop(socket, topic)
        self._outgoing.pop(socket, None)

    def stats(self) -> HubStats:
        """Return how much is held."""
        return HubStats(
            sockets=len(self._sockets),
            subscriptions=sum(len(topics) for topics in self._sockets.values()),
            requests=len(self._requests),
        )

    # -------------------------------------------------------------------------------------------------------- delivery

    def changed(self, topic: Topic) -> None:
        """Deliver what is new in ``topic`` at the end of the tick."""
        self._dirty[topic] = None
        self._schedule()

    def flush(self) -> None:
        """Give each reader of each changed topic what it has room for: one write a socket."""
        self._scheduled = False
        self.deliver()

    def deliver(self) -> None:
        """Do so at once, as something is about to be held no more."""
        changed, self._dirty = self._dirty, {}
        outgoing, self._outgoing = self._outgoing, {}
        try:
            while changed:
                self._advance(changed.popitem()[0], outgoing)
        finally:
            for socket, frames in outgoing.items():
                try:
                    socket.write(frames)
                except RuntimeError:  # its connection is lost, and nobody has said so yet: the others go on
                    self.leave(socket)
            self._dirty.update(changed)
            if self._dirty:
                self._schedule()

    def poll(self) -> bool:
        """Look after the sockets that lag, and say whether any still does.

        One that has drained goes on. One that has not moved for ``STALL_LIMIT`` seconds is closed.
        """
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
                self.dismiss(socket, PROBLEMS[SLOW].close, SLOW)
        return bool(self._lagging)

    def goodbye(self, reason: str, spread: float) -> int:
        """Tell every socket to come back within ``spread`` seconds, each at its own time; return their number."""
        self._leaving = True
        self.flush()
        sockets = tuple(self._sockets)
        for index, socket in enumerate(sockets):
            delay = spread * (index + random.random()) / len(sockets)  # noqa: S311 - jitter is no secret
            self.dismiss(socket, 1000, reason, self._encode(disconnect_json(reason, delay)))
        return len(sockets)

    def abandon(self, code: int, reason: str) -> None:
        """Close every socket: what is known of them is lost."""
        self._leaving = True
        for socket in tuple(self._sockets):
            self.dismiss(socket, code, reason)

    def dismiss(self, socket: Socket, code: int, reason: str, farewell: bytes = b"") -> None:
        """Let go of a socket: write what is left to say, and close it."""
        self.leave(socket)
        with suppress(RuntimeError):  # as in ``deliver``
            if farewell:
                socket.write(farewell)
            socket.close(code, reason)

    # ---------------------------------------------------------------------------------------------------------- inside

    def _topic(self, stream: EventStream) -> RequestTopic:
        key = (stream.request_id, stream.epoch)
        topic = self._requests.get(key)
        if topic is None:
            topic = RequestTopic(stream, self._encode, changed=self.changed, closed=self._forget)
            self._requests[key] = topic
        return topic

    def _forget(self, topic: RequestTopic) -> None:
        del self._requests[topic.stream.request_id, topic.stream.epoch]

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._soon(self.flush)

    def _advance(self, topic: Topic, outgoing: dict[Socket, bytes]) -> None:
        readers, behind, end = topic.readers, topic.behind, topic.end
        lagging, mark = self._lagging, self._high_water
        pages: dict[tuple[int, bool], Page] = {}
        shared: Page | None = None
        shared_by = end  # most readers stand at one place: for those a comparison finds the page
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
        for socket in ended:
            if readers[socket] == LOST:
                del outgoing[socket]
                self.dismiss(socket, PROBLEMS[SLOW].close, SLOW)
            else:
                self._drop(socket, topic)

    def _lag(self, socket: Socket) -> None:
        if socket not in self._lagging:
            self._lagging[socket] = _Lag(socket.buffered, self._clock())
            if len(self._lagging) == 1:
                self._watch()

    def _drop(self, socket: Socket, topic: Topic) -> None:
        followed = self._sockets[socket]
        del followed[topic.name]
        if not followed:
            del self._sockets[socket]
            self._lagging.pop(socket, None)
        del topic.readers[socket]
        topic.behind.discard(socket)
        if not topic.readers:
            self._dirty.pop(topic, None)
            topic.close()
