"""A benchmark of this checkout against the same one of another checkout, in turns.

Each round runs ``python -m benchmarks NAME --rounds 1`` in both checkouts, one after the other, with this interpreter
and its packages. The ratio of a line is taken round by round: this checkout's figure over the other's.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.children import TOP, environment
from benchmarks.harness import Plan, Result, Row, Word, ratios

LONGEST: Final = 1800.0  # seconds for one benchmark's single round
RATES: Final = ("/s", "1/CPU s")  # units of which more is better

Line = tuple[str, str, str]  # case, side, unit


def run(name: str, plan: Plan) -> Result:
    """Return the lines that both checkouts have, each with its ratio."""
    assert plan.against is not None, "another checkout is needed"
    ours: list[dict[Line, float]] = []
    others: list[dict[Line, float]] = []
    for _ in range(plan.rounds):
        ours.append(once(name, TOP, quick=plan.quick))
        others.append(once(name, plan.against, quick=plan.quick))
    common = [line for line in ours[0] if all(line in figures for figures in (*ours, *others))]
    rows: list[Row] = []
    for case, side, unit in common:
        here = tuple(figures[case, side, unit] for figures in ours)
        there = tuple(figures[case, side, unit] for figures in others)
        word: Word = "rate" if unit.endswith(RATES) else "cost"
        rows.append(Row(benchmark=name, case=case, side=f"{side}, other checkout", unit=unit, values=there))
        against = ratios(here, there)
        rows.append(Row(benchmark=name, case=case, side=side, unit=unit, values=here, ratios=against, word=word))
    return Result(tuple(rows))


def once(name: str, checkout: Path, *, quick: bool) -> dict[Line, float]:
    """Run one round of a benchmark in a checkout, and return its figures."""
    with TemporaryDirectory(prefix="compare") as folder:
        figures = Path(folder) / "figures.json"
        command = [sys.executable, "-m", "benchmarks", name, "--rounds", "1", "--json", str(figures)]
        subprocess.run(  # noqa: S603 - our own command
            command + ["--quick"] * quick,
            cwd=checkout,
            env=environment(checkout),
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=LONGEST,
        )
        rows = json.loads(figures.read_text())[name]["rows"]
    return {(row["case"], row["side"], row["unit"]): statistics.median(row["values"]) for row in rows}
