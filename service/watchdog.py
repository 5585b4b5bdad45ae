"""Watchdog of an event loop: notices when the loop does not turn, and says which handler had it."""

import asyncio
import gc
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

import msgspec
import structlog
from opentelemetry.trace import Tracer

from protocol import spans
from protocol.line_limit import LineLimit

THRESHOLD: Final = 0.1  # seconds
BEATS: Final = 4  # looks within the threshold: a lag that is a quarter longer is always noticed
RECENT: Final = 60.0  # seconds for which a lag shows in health
MAX_RECENT: Final = 256  # lags that are remembered
MAX_STACK: Final = 12  # frames of a sample
MAX_WALK: Final = 200  # frames that are looked at
MAX_NAME: Final = 120  # characters
FRAMEWORK: Final = ("asyncio", "uvloop", "aiohttp", "actors.runtime")
SERVICE: Final = ("service.server", "service.middleware")
"""Modules, and those below them, whose frames are around every handler."""

TURNS: Final = frozenset(
    {asyncio.Handle._run.__code__, asyncio.Runner.run.__code__, asyncio.BaseEventLoop.run_forever.__code__}  # noqa: SLF001
)
"""Functions of a loop: what they call is a turn of it."""

_log = structlog.get_logger("service")


class Sample(msgspec.Struct, frozen=True):
    """Where a loop's thread was while the loop did not turn.

    Attributes:
        task: the name of the task that ran, an actor's for its handlers; empty for a callback.
        handler: the outermost function that is not the framework's, with its module; empty for none.
        stack: the innermost frames, the innermost one last: ``file:line function``.
    """

    task: str = ""
    handler: str = ""
    stack: tuple[str, ...] = ()


class Lag(msgspec.Struct, frozen=True):
    """A time in which the loop did not turn.

    Attributes:
        ended: when, by the watchdog's clock.
        seconds: how long, less by at most a quarter of the threshold.
        sample: where the loop's thread was when the threshold had passed.
        collecting: seconds of the garbage collector within it.
    """

    ended: float
    seconds: float
    sample: Sample
    collecting: float = 0.0


NOTHING: Final = Sample()


class LoopWatchdog:
    """Notices a loop that lags, logs a line with what ran (``loop_lagged``), and opens a span of the lag.

    ::

        async with System() as system:
            with LoopWatchdog().watching():
                ...

    A timer of the loop is due several times within the threshold. A thread looks whether it is late, and then at the
    frame of the loop's thread: while the loop turns, both cost some 10 µs of each 25 ms. Code in C that holds the
    interpreter's lock is seen when it returns, in the function that has called it.

    Args:
        threshold: seconds.
        tracer: opens the spans; None for none.
        clock: seconds, monotonic.

    Attributes:
        lags: how many there were.
    """

    def __init__(
        self, threshold: float = THRESHOLD, *, tracer: Tracer | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if threshold <= 0:
            raise ValueError(f"threshold must be positive, got {threshold}")
        self.lags = 0
        self._threshold = threshold
        self._interval = threshold / BEATS
        self._tracer = tracer
        self._clock = clock
        self._recent: deque[Lag] = deque(maxlen=MAX_RECENT)
        self._lines = LineLimit(clock=clock)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0  # the loop's
        self._due = 0.0  # when the next beat is due
        self._timer: asyncio.TimerHandle | None = None
        self._sampled: tuple[float, Sample] | None = None  # when the beat was due that is late, and where the loop was
        self._collecting = 0.0
        self._collection_began = 0.0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the running loop."""
        stopped = threading.Event()
        sampler = threading.Thread(target=self._sample_until, args=(stopped,), name="loop-watchdog", daemon=True)
        self.start()
        gc.callbacks.append(self._on_collection)
        sampler.start()
        try:
            yield
        finally:
            stopped.set()
            gc.callbacks.remove(self._on_collection)
            if self._timer is not None:
                self._timer.cancel()
            sampler.join()

    def start(self) -> None:
        """Set the first beat in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._set_beat(self._clock())

    def sample(self) -> bool:
        """Look where the loop's thread is, where the beat is late by the threshold; returns whether it was.

        Another thread than the loop's calls it.
        """
        due = self._due
        if self._clock() - due < self._threshold:
            return False
        if self._sampled is None or self._sampled[0] != due:
            frame = sys._current_frames().get(self._thread)  # noqa: SLF001 - the documented way
            self._sampled = (due, sample_of(frame, _running(self._loop)))
        return True

    def beat(self) -> None:
        """Note that the loop turns; the timer calls it."""
        now = self._clock()
        late = now - self._due
        if late >= self._threshold:
            sampled = self._sampled
            where = sampled[1] if sampled is not None and sampled[0] == self._due else NOTHING
            self._note(Lag(now, late, where, self._collecting))
        self._collecting = 0.0
        self._set_beat(now)

    def recent(self) -> tuple[int, Lag | None]:
        """Return how many lags there were in the last minute, at most ``MAX_RECENT``, and the longest one."""
        since = self._clock() - RECENT
        while self._recent and self._recent[0].ended < since:
            self._recent.popleft()
        return len(self._recent), max(self._recent, key=lambda lag: lag.seconds, default=None)

    def _set_beat(self, now: float) -> None:
        if self._loop is not None:
            self._due = now + self._interval
            self._timer = self._loop.call_later(self._interval, self.beat)

    def _sample_until(self, stopped: threading.Event) -> None:
        while not stopped.wait(self._interval):
            self.sample()

    def _on_collection(self, phase: str, _info: dict[str, int]) -> None:
        if threading.get_ident() != self._thread:
            return
        if phase == "start":
            self._collection_began = self._clock()
        else:
            self._collecting += self._clock() - self._collection_began

    def _note(self, lag: Lag) -> None:
        self.lags += 1
        self._recent.append(lag)
        omitted = self._lines.take()
        if omitted is None:
            return
        sample, ms = lag.sample, round(lag.seconds * 1000, 1)
        fields: dict[str, Any] = {"task": sample.task, "handler": sample.handler, "stack": sample.stack}
        if lag.collecting:
            fields["collector_ms"] = round(lag.collecting * 1000, 1)
        _log.warning("loop_lagged", ms=ms, **fields, omitted=omitted)
        if self._tracer is not None:
            ended = time.time_ns()
            attributes = {spans.LOOP_TASK: sample.task, spans.LOOP_HANDLER: sample.handler}
            began = ended - round(lag.seconds * 1e9)
            self._tracer.start_span(spans.LOOP_LAG, attributes=attributes, start_time=began).end(ended)


def sample_of(frame: FrameType | None, task: "asyncio.Task[Any] | None") -> Sample:
    """Return where a thread is: from its innermost frame, and the task that runs in it."""
    stack: list[str] = []
    handler = ""
    outermost = None if task is None else getattr(task.get_coro(), "cr_frame", None)
    for _ in range(MAX_WALK):
        if frame is None or frame.f_code in TURNS:
            break
        code, module = frame.f_code, str(frame.f_globals.get("__name__", ""))
        if len(stack) < MAX_STACK:
            stack.append(f"{_short(code.co_filename)}:{frame.f_lineno} {code.co_qualname}"[-MAX_NAME:])
        if not _around(module):
            handler = f"{module}.{code.co_qualname}"
        if frame is outermost:
            break
        frame = frame.f_back
    name = "" if task is None else task.get_name()
    return Sample(name[:MAX_NAME], handler[:MAX_NAME], tuple(reversed(stack)))


def _running(loop: asyncio.AbstractEventLoop | None) -> "asyncio.Task[Any] | None":
    return None if loop is None else asyncio.current_task(loop)


def _around(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in FRAMEWORK + SERVICE)


def _short(path: str) -> str:
    """Return the last parts of a path: those of a package."""
    return "/".join(path.replace("\\", "/").split("/")[-3:])
