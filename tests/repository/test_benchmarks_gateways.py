from pathlib import Path

import pytest

from benchmarks import gateways, installed
from benchmarks.foreign import ticks
from benchmarks.gateways import BARE, DIRECT, LITELLM, OURS, PORTKEY
from benchmarks.processes.load import percentile


def test_the_gateways_are_measured_by_the_bare_proxy_and_by_us() -> None:
    """Tidegate against the bare proxy, each other gateway against Tidegate; one that is not installed has no lines."""
    figures = {name: {"cpu": [cost]} for name, cost in ((DIRECT, 0.1), (BARE, 1.0), (OURS, 1.5), (PORTKEY, 4.0))}

    rows = gateways.costs("unary", figures)

    assert [(row.case, row.side, row.word, row.ratios, row.met) for row in rows] == [
        ("unary", BARE, "", (), None),
        ("unary", OURS, "cost", (1.5,), True),
        ("unary", PORTKEY, "cost", (4.0,), None),
        ("unary, against Portkey", OURS, "cheaper", (4.0 / 1.5,), False),
    ]
    rows = gateways.costs("unary", {**figures, LITELLM: {"cpu": [30.0]}})
    assert [(row.case, row.ratios, row.met) for row in rows if "LiteLLM" in row.case] == [
        ("unary, against LiteLLM", (20.0,), True)
    ]


def test_what_the_first_content_costs_is_less_what_the_upstream_needs() -> None:
    """The ratio is taken round by round, in milliseconds."""
    figures = {
        DIRECT: {"first_p50": [0.001, 0.002], "first_p99": [0.003, 0.004]},
        OURS: {"first_p50": [0.002, 0.004], "first_p99": [0.013, 0.024]},
    }

    rows = gateways.overheads("first content", figures)

    assert [(row.case, row.side) for row in rows] == [("first content, p50", OURS), ("first content, p99", OURS)]
    assert [row.values for row in rows] == [pytest.approx((1.0, 2.0)), pytest.approx((10.0, 20.0))]


def test_who_needs_long_is_asked_less_but_on_every_connection() -> None:
    """Each connection makes at least two calls."""
    assert [gateways.turns(name, 300, 1) for name in (OURS, LITELLM, PORTKEY)] == [300, 30, 150]
    assert gateways.turns(LITELLM, 300, 64) == 128


def test_a_percentile_is_a_figure_that_was_there() -> None:
    """A percentile is the smallest value that this share of the values does not exceed."""
    assert [percentile([3.0, 1.0, 2.0], share) for share in (0.0, 0.5, 0.99)] == [1.0, 2.0, 3.0]
    assert percentile([], 0.5) == 0.0


def test_the_cpu_time_of_a_server_is_that_of_all_its_processes() -> None:
    """CPU time includes the process, its descendants and ended children, whatever their names, and no other process."""

    def stat(parent: int, *spent: int) -> str:
        return f"9 (a) b) S {parent} 0 0 0 0 0 0 0 0 0 {' '.join(map(str, spent))} 20 0"

    stats = {1: stat(0, 9, 9, 9, 9), 5: stat(1, 1, 2, 3, 4), 7: stat(5, 10, 0, 0, 0), 8: stat(7, 0, 0, 0, 5)}

    assert ticks(5, {**stats, 9: stat(1, 1000, 0, 0, 0)}) == 25
    assert ticks(6, stats) == 0


async def test_what_can_t_be_installed_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without node there is no Portkey, and where pip fails no LiteLLM."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no such luck\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setenv(installed.HOME_VARIABLE, str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(python))

    with pytest.raises(installed.UnavailableError, match="node and npm are not installed"):
        await installed.portkey()
    with pytest.raises(installed.UnavailableError, match="no such luck"):
        await installed.litellm()
