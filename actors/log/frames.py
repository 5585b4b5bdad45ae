"""Native frames of entries and snapshots: JSON, with the partial value where the request asks for it."""

from collections.abc import Sequence

from protocol.events import Delta, Entry, EventStream, Snapshot
from protocol.websocket.out import conflated, snapshot_json, update_json, with_partial


def update_frames(stream: EventStream, entries: Sequence[Entry], *, merged: bool = False) -> list[bytes]:
    """Return the frames of ``entries``, which ``stream`` has just returned.

    There is one frame per entry, or with ``merged`` as few frames as possible. Where they reach the end of the stream,
    the last update has the partial value.
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
    """Return the frame of ``snapshot``, which ``stream`` has just returned."""
    frame = snapshot_json(stream.request_id, stream.epoch, snapshot)
    partial = stream.partial()
    return frame if partial is None else with_partial(frame, partial)
