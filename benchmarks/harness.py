"""Harness of the benchmarks: interleaved rounds, medians, and ratios round by round.

The speed of a shared machine changes from minute to minute. So the sides of a comparison take turns (A B A B ...), each
round gives one ratio, and the result is the median of the ratios; the smallest and the largest show its reliability.
"""

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

Sample = Mapping[str, float]
Side = Callable[[], Awaitable[Sample]]
Word = Literal["rate", "cost", "cheaper", ""]


class Plan(msgspec.Struct, frozen=True):
    """The amount of work.

    Attributes:
        rounds: the number of rounds.
        quick: a tenth of the work in each round: for a look, not for publication.
        against: another checkout of the project, such as the state before a change, to compare with.
    """

    rounds: int = 5
    quick: bool = False
    against: Path | None = None

    def scaled(self, count: int) -> int:
        """Return ``count``, or a tenth of it (at least one) for a quick run."""
        return max(1, count // 10) if self.quick else count


class Goal(msgspec.Struct, frozen=True):
    """A goal for a figure; ``at`` is ``least`` or ``most``."""

    at: Literal["least", "most"]
    value: float

    def met(self, figure: float) -> bool:
        """Whether ``figure`` is good enough."""
        return figure >= self.value if self.at == "least" else figure <= self.value

    def __str__(self) -> str:
        return f"{'>=' if self.at == 'least' else '<='} {self.value:g}"


class Spread(msgspec.Struct, frozen=True):
    """The median, the smallest and the largest of some figures."""

    median: float
    low: float
    high: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table.

    Attributes:
        benchmark: its module.
        case: what was measured.
        side: the side that was measured.
        unit: of ``values``.
        values: one figure a round.
        ratios: the same against the baseline, round by round; empty for the baseline itself.
        word: the kind of ratio: ``rate`` and ``cost`` are ours over the baseline's, ``cheaper`` is the baseline's over
            ours.
        goal: for the median ratio, or for the median value where there is no ratio.
    """

    benchmark: str
    case: str
    side: str
    unit: str
    values: tuple[float, ...]
    ratios: tuple[float, ...] = ()
    word: Word = ""
    goal: Goal | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        if self.goal is None:
            return None
        return self.goal.met(statistics.median(self.ratios or self.values))


class Result(msgspec.Struct, frozen=True):
    """The rows of one benchmark, and notes for reading them."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def spread(figures: Sequence[float]) -> Spread:
    """Return the median, the smallest and the largest of ``figures``, which are not empty."""
    return Spread(statistics.median(figures), min(figures), max(figures))


def ratios(figures: Sequence[float], baseline: Sequence[float]) -> tuple[float, ...]:
    """Return figure over baseline for each round; infinity for a baseline of 0."""
    if len(figures) != len(baseline):
        message = f"rounds do not match: {len(figures)} against {len(baseline)}"
        raise ValueError(message)
    return tuple(a / b if b else float("inf") for a, b in zip(figures, baseline, strict=True))


async def interleave(
    rounds: int, sides: Mapping[str, Side], *, warm_up: bool = True
) -> dict[str, dict[str, list[float]]]:
    """Run one round of each side to warm up, then ``rounds`` rounds in turns; return side, metric, figures."""
    figures: dict[str, dict[str, list[float]]] = {name: {} for name in sides}
    if warm_up:
        for side in sides.values():
            await side()
    for _ in range(rounds):
        for name, side in sides.items():
            for metric, value in (await side()).items():
                figures[name].setdefault(metric, []).append(value)
    return figures


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of several sides as rows of the table: the baseline first, then each side with its ratio.

    Attributes:
        benchmark: its module.
        case: what was measured.
        metric: the metric's key in each sample.
        unit: of the metric.
        baseline: the side that the ratios compare with.
        word: the kind of ratio, as in ``Row``.
        goals: by side.
    """

    benchmark: str
    case: str
    metric: str
    unit: str
    baseline: str
    word: Word
    goals: Mapping[str, Goal] = {}

    def rows(self, figures: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Row]:
        """Return the rows of the result of ``interleave``."""
        base = figures[self.baseline][self.metric]
        lines = [self._row(self.baseline, base)]
        for side, metrics in figures.items():
            if side == self.baseline or self.metric not in metrics:
                continue
            own = metrics[self.metric]
            against = ratios(base, own) if self.word == "cheaper" else ratios(own, base)
            lines.append(self._row(side, own, against))
        return lines

    def _row(self, side: str, values: Sequence[float], against: tuple[float, ...] = ()) -> Row:
        return Row(
            benchmark=self.benchmark,
            case=self.case,
            side=side,
            unit=self.unit,
            values=tuple(values),
            ratios=against,
            word=self.word if against else "",
            goal=self.goals.get(side) if against else None,
        )
