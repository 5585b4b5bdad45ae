"""``python -m benchmarks [name ...] [--rounds N] [--quick] [--against DIR] [--json FILE]``: run and print one table."""

import argparse
import importlib
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from benchmarks import compare
from benchmarks.harness import Plan, Result
from benchmarks.table import document, render

NAMES: Final = (
    "imports",
    "runtime",
    "tracing",
    "log",
    "proxying",
    "fanout",
    "stalled",
    "isolation",
    "memory",
    "collector",
)
ON_REQUEST: Final = ("callgrind", "gateways")  # these need what `make` does not install
COMPARES_BY_ITSELF: Final = ("callgrind",)  # another checkout's figures are in its own rounds
ROUNDS: Final = 5
QUICK_ROUNDS: Final = 2


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks named on the command line, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Run benchmarks and print one table.")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="name",
        help=f"which ones: {', '.join(NAMES)}, which is what runs by default; or {', '.join(ON_REQUEST)}",
    )
    parser.add_argument("--rounds", type=int, help=f"turns of each side ({ROUNDS}, or {QUICK_ROUNDS} with --quick)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work: not figures to quote")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there, too")
    parser.add_argument(
        "--against", type=Path, metavar="DIR", help="compare with the same benchmarks of another checkout, in turns"
    )
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.names if name not in NAMES + ON_REQUEST]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(NAMES + ON_REQUEST)}")
    rounds = chosen.rounds or (QUICK_ROUNDS if chosen.quick else ROUNDS)
    if rounds < 1:
        parser.error(f"--rounds must be positive, got {rounds}")
    if chosen.against and not (chosen.against / "benchmarks").is_dir():
        parser.error(f"--against must be a checkout of the project, got {chosen.against}")
    against = chosen.against.resolve() if chosen.against else None
    results = measure(chosen.names or NAMES, Plan(rounds=rounds, quick=chosen.quick, against=against))
    print(
        f"Python {platform.python_version()}, {platform.machine()}, {rounds} rounds{', quick' if chosen.quick else ''}"
    )
    print(render(results.values()))
    if chosen.json:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(document(results)), indent=2))
    return 0


def measure(names: tuple[str, ...] | list[str], plan: Plan) -> dict[str, Result]:
    """Run these benchmarks one after the other."""
    results: dict[str, Result] = {}
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        run: Callable[[Plan], Result] = importlib.import_module(f"benchmarks.{name}").run
        if plan.against is not None and name not in COMPARES_BY_ITSELF:
            results[name] = compare.run(name, plan)
        else:
            results[name] = run(plan)
    return results


if __name__ == "__main__":
    sys.exit(main())
