"""The nearest of the known names to one that is not known, for messages."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the known name that is nearest; empty where none is near."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    found = get_close_matches(name[:80].casefold(), by_folded, n=1)
    return f"; did you mean {by_folded[found[0]]!r}?" if found else ""
