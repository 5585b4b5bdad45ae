"""What a stream has given as native readers get it: JSON, with the value so far where the request asks for that."""

from collections.abc import Sequence

from protocol.events import Delta, Entry, EventStream, Snapshot
from protocol.websocket.out import conflated, snapshot_json, update_json, with_partial


def update_frames(stream: EventStream, entries: Sequence[Entry], *, merged: bool = False) -> list[bytes]:
    """Return the JSON of ``entries``, which ``stream`` has just given: a frame each, or ``merged`` as few as can be.

    Where they lead up to the present, the last update has the value so far: those before it would be out of date.
    """
    request_id, last = stream.request_id, entries[-1]
    frames = conflated(request_id, entries) if merged else [update_json(request_id, entry) for entry in entries]
    place = len(frames) - 1 - last.terminal
    if place >= 0 and last.offset == stream.offset:
        new = sum(len(entry.event.text) for entry in entries if isinstance(entry.event, Delta))
        partial = stream.partial(new)
        if partial is not None:
            frames[place] = with_partial(frames[place], partial)
    return frames


def snapshot_frame(stream: EventStream, snapshot: Snapshot) -> bytes:
    """Return the JSON of a snapshot that ``stream`` has just given."""
    frame = snapshot_json(stream.request_id, stream.epoch, snapshot)
    partial = stream.partial()
    return frame if partial is None else with_partial(frame, partial)
