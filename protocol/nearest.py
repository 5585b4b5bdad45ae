"""The nearest of the known names to one that is not known, for messages."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """Return ``; did you mean 'x'?`` for the known name that is nearest; empty where none is near.

    Args:
        name: the unknown one.
        known: the known ones.
        likeness: how like it has to be, from 0 to 1.
    """
    by_folded = {candidate.casefold(): candidate for candidate in known}
    found = get_close_matches(name[:80].casefold(), by_folded, n=1, cutoff=likeness)
    return f"; did you mean {by_folded[found[0]]!r}?" if found else ""
