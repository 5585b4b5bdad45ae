from collections.abc import Callable

from actors.wire.idle_timer import Expiry


class Handle:
    """A timer."""

    def __init__(self, when: float, fire: Callable[[], None]) -> None:
        self.when = when
        self.fire = fire
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """A loop whose clock is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Handle] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, fire: Callable[[], None]) -> Handle:
        self.timers.append(Handle(when, fire))
        return self.timers[-1]

    def pending(self) -> list[float]:
        """When timers will fire."""
        return [timer.when for timer in self.timers if not timer.cancelled]

    def advance(self, now: float) -> None:
        """Set the clock, and fire what is due."""
        self.now = now
        due = [timer for timer in self.timers if timer.when <= now and not timer.cancelled]
        self.timers = [timer for timer in self.timers if timer not in due]
        for timer in due:
            timer.fire()


async def make(gone: list[str]) -> tuple[Expiry[str], Loop]:
    """A set whose things may stay for ten seconds, and its loop."""
    some: Expiry[str] = Expiry(10.0, gone.append)
    loop = Loop()
    some._loop = loop  # type: ignore[assignment]
    return some, loop


async def test_whose_time_is_up_is_taken_out_in_order() -> None:
    """Each once, and not those that were removed before; one timer goes on to the next one's time."""
    gone: list[str] = []
    some, loop = await make(gone)
    for name in "abc":
        some.add(name)
        some.add(f"{name}'")
        loop.advance(loop.now + 2)
    some.remove("b")
    some.remove("b")
    assert ([*some], "a" in some, "b" in some) == (["a", "a'", "b'", "c", "c'"], True, False)
    assert (len(some), loop.pending()) == (5, [10.0])
    loop.advance(10)
    assert (gone, loop.pending()) == (["a", "a'"], [12.0])
    loop.advance(20)
    assert (gone, loop.pending(), len(some)) == (["a", "a'", "b'", "c", "c'"], [], 0)


async def test_a_timer_that_finds_nothing_is_not_set_again() -> None:
    """It is there again with the next thing."""
    gone: list[str] = []
    some, loop = await make(gone)
    some.add("a")
    some.remove("a")
    loop.advance(10)
    assert (gone, loop.pending()) == ([], [])
    some.add("b")
    assert loop.pending() == [20.0]


async def test_closing_forgets_all() -> None:
    """Nobody is told, and there is no timer left."""
    gone: list[str] = []
    some, loop = await make(gone)
    some.add("a")
    some.close()
    some.close()
    assert (len(some), loop.pending(), gone) == (0, [], [])
