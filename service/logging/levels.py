"""Levels of log lines, and the lowest one that each logger writes."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

TRACE: Final = 5
DEBUG: Final = 10
INFO: Final = 20
WARNING: Final = 30
ERROR: Final = 40
FATAL: Final = 50

NUMBERS: Final = {"trace": TRACE, "debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR, "fatal": FATAL}
LIBRARY: Final = "tidegate."
"""The actors' loggers begin with it, and a configured name may leave it out: ``wire`` means ``tidegate.wire``, too."""

_NAMES: Final = tuple(sorted(((number, name) for name, number in NUMBERS.items()), reverse=True))
_STANDARD: Final = {number: name for name, number in NUMBERS.items()}


def level_name(number: int) -> str:
    """Return the name of the highest level that is at most ``number``."""
    name = _STANDARD.get(number)
    if name is None:
        name = next((name for least, name in _NAMES if number >= least), "trace")
    return name


class Levels:
    """The lowest level of each logger: its own, else that of its nearest parent, else the lowest of all.

    Args:
        lowest: the level of a logger that no name covers.
        by_name: names of loggers, dotted, with their levels; the last one of a name counts.
    """

    def __init__(self, lowest: str, by_name: Iterable[tuple[str, str]] = ()) -> None:
        self.lowest: int = NUMBERS[lowest.lower()]
        self._by_name = {name.removeprefix(LIBRARY): NUMBERS[level.lower()] for name, level in by_name}

    def of(self, logger: str) -> int:
        """Return the lowest level that ``logger`` writes."""
        name = logger.removeprefix(LIBRARY)
        while name:
            level = self._by_name.get(name)
            if level is not None:
                return level
            name = name.rpartition(".")[0]
        return self.lowest

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Set the levels of the standard library's loggers; at the end the previous ones are set back."""
        wanted = {"": self.lowest, **self._by_name}
        wanted |= {LIBRARY + name: level for name, level in self._by_name.items()}
        loggers = {name: logging.getLogger(name or None) for name in wanted}
        before = {name: logger.level for name, logger in loggers.items()}
        try:
            for name, level in wanted.items():
                loggers[name].setLevel(level)
            yield
        finally:
            for name, level in before.items():
                loggers[name].setLevel(level)
