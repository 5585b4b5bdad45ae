"""The garbage collector of a server: what survives is frozen, and is looked at again only when nothing runs."""

import gc
from collections.abc import Iterator

import pytest

from service import collector
from service.collector import PASSES, YOUNG, Collector


class Pair:
    """Half of a cycle."""

    def __init__(self) -> None:
        self.other: Pair | None = None


def cycle() -> Pair:
    """Return a cycle of two."""
    one, two = Pair(), Pair()
    one.other, two.other = two, one
    return one


def pairs() -> int:
    """Return how many halves there are, frozen ones too."""
    gc.unfreeze()
    return sum(type(thing) is Pair for thing in gc.get_objects())


class Load:
    """How much runs."""

    running = 0

    async def __call__(self) -> int:
        return self.running


@pytest.fixture
def load() -> Load:
    """What runs, as the test says."""
    return Load()


@pytest.fixture
def started(load: Load, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector at work, whose time for everything has always come."""
    monkeypatch.setattr(collector, "INTERVAL", 0.0)
    made = Collector(load)
    made.start()
    yield made
    made.stop()


def churn() -> list[list[int]]:
    """Allocate until the second generation has been collected."""
    return [[] for _ in range(YOUNG * (PASSES + 2))]


async def test_survivors_are_frozen(started: Collector) -> None:
    """No later pass looks at them, so each pass is as short as the number of new objects."""
    before = gc.get_freeze_count()
    kept = churn()
    assert gc.get_freeze_count() > before + len(kept) // 2
    assert gc.get_count()[0] <= YOUNG
    assert gc.get_threshold()[2] > 1_000_000
    del started


async def test_young_cycles_are_collected(started: Collector) -> None:
    """A cycle that nobody holds is freed by the next pass."""
    cycle()
    kept = churn()
    assert pairs() == 0
    del kept, started


async def test_old_cycles_wait_for_a_quiet_moment(started: Collector, load: Load) -> None:
    """A cycle that was frozen while it was in use is freed when nothing runs."""
    held = [cycle()]
    kept = churn()
    held.clear()
    gc.collect()
    load.running = 1
    assert not await started.look()
    load.running = 0
    assert await started.look()
    assert pairs() == 0
    assert not await started.look(), "nothing was frozen since"
    del kept


async def test_stop_gives_the_collector_back() -> None:
    """The thresholds are those of before, and nothing stays frozen."""
    before = gc.get_threshold(), list(gc.callbacks)
    made = Collector(Load())
    made.start()
    made.stop()
    assert (gc.get_threshold(), gc.callbacks) == before
    assert gc.get_freeze_count() == 0
