"""The table on the terminal, and the same as JSON."""

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.harness import Result, Row, spread

HEADINGS = ("benchmark", "case", "side", "median", "min..max", "unit", "ratio", "min..max", "goal")
LEFT = frozenset({0, 1, 2, 5, 8})


def number(value: float) -> str:
    """Return three significant digits, with thousands separators and no exponent."""
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 1 or value == 0 else f"{value:.3f}"


def line(row: Row) -> tuple[str, ...]:
    """Return the cells of a row."""
    middle = spread(row.values)
    cells = [row.benchmark, row.case, row.side, number(middle.median)]
    cells += [f"{number(middle.low)}..{number(middle.high)}", row.unit]
    if row.ratios:
        ratio = spread(row.ratios)
        cells += [f"{number(ratio.median)}x {row.word}", f"{number(ratio.low)}..{number(ratio.high)}"]
    else:
        cells += ["", ""]
    verdict = "" if row.goal is None else f"{row.goal} {'met' if row.met else 'MISSED'}"
    return (*cells, verdict)


def render(results: Iterable[Result]) -> str:
    """Return the table of all results, and their notes below it."""
    gathered = list(results)
    lines = [HEADINGS, *(line(row) for result in gathered for row in result.rows)]
    widths = [max(len(cells[column]) for cells in lines) for column in range(len(HEADINGS))]
    rule = tuple("-" * width for width in widths)
    table = "\n".join(_join(cells, widths) for cells in (lines[0], rule, *lines[1:]))
    notes = [f"* {note}" for result in gathered for note in result.notes]
    return "\n".join([table, "", *notes]) if notes else table


def document(results: dict[str, Result]) -> dict[str, Any]:
    """Return all results as plain values: every figure of every round, with medians and verdicts."""
    return {
        name: {"notes": result.notes, "rows": [_plain(row) for row in result.rows]} for name, result in results.items()
    }


def _plain(row: Row) -> dict[str, Any]:
    return {
        "case": row.case,
        "side": row.side,
        "unit": row.unit,
        "values": row.values,
        "median": spread(row.values).median,
        "ratios": row.ratios,
        "ratio": spread(row.ratios).median if row.ratios else None,
        "word": row.word,
        "goal": str(row.goal) if row.goal else None,
        "met": row.met,
    }


def _join(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (
        cell.ljust(width) if column in LEFT else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(padded).rstrip()
