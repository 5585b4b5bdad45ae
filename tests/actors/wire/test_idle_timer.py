from collections.abc import Callable

from actors.wire.idle_timer import IdleTimer


class Handle:
    """A timer handle."""

    def __init__(self, when: float, fire: Callable[[], None]) -> None:
        self.when = when
        self.fire = fire
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """An event loop with a manual clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Handle] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, fire: Callable[[], None]) -> Handle:
        self.timers.append(Handle(when, fire))
        return self.timers[-1]

    def pending(self) -> list[float]:
        """Return when the timers will fire."""
        return [timer.when for timer in self.timers if not timer.cancelled]

    def advance(self, now: float) -> None:
        """Set the clock, and fire the timers that are due."""
        self.now = now
        due = [timer for timer in self.timers if timer.when <= now and not timer.cancelled]
        self.timers = [timer for timer in self.timers if timer not in due]
        for timer in due:
            timer.fire()


async def make(expired: list[str]) -> tuple[IdleTimer[str], Loop]:
    """Return a timer of ten seconds, and its loop."""
    timer: IdleTimer[str] = IdleTimer(10.0, expired.append)
    loop = Loop()
    timer._loop = loop  # type: ignore[assignment]
    return timer, loop


async def test_items_expire_in_order() -> None:
    """Each item expires once, in order, unless it was removed; one timer serves all."""
    expired: list[str] = []
    timer, loop = await make(expired)
    for name in "abc":
        timer.add(name)
        timer.add(f"{name}'")
        loop.advance(loop.now + 2)
    timer.remove("b")
    timer.remove("b")
    assert ([*timer], "a" in timer, "b" in timer) == (["a", "a'", "b'", "c", "c'"], True, False)
    assert (len(timer), loop.pending()) == (5, [10.0])
    loop.advance(10)
    assert (expired, loop.pending()) == (["a", "a'"], [12.0])
    loop.advance(20)
    assert (expired, loop.pending(), len(timer)) == (["a", "a'", "b'", "c", "c'"], [], 0)


async def test_a_timer_that_finds_nothing_is_not_set_again() -> None:
    """A timer that finds no item is set again by the next item."""
    expired: list[str] = []
    timer, loop = await make(expired)
    timer.add("a")
    timer.remove("a")
    loop.advance(10)
    assert (expired, loop.pending()) == ([], [])
    timer.add("b")
    assert loop.pending() == [20.0]


async def test_closing_forgets_all() -> None:
    """Closing removes all items without a callback, and cancels the timer."""
    expired: list[str] = []
    timer, loop = await make(expired)
    timer.add("a")
    timer.close()
    timer.close()
    assert (len(timer), loop.pending(), expired) == (0, [], [])
