"""The log lines of calls whose credential is not valid."""

from service.middleware.unauthenticated import INTERVAL, UnauthenticatedLines


def test_a_flood_of_guesses_is_a_bounded_number_of_lines() -> None:
    """The first ones have a line each; the next interval begins with the number of the others."""
    now = 0.0
    lines = UnauthenticatedLines(most=3, clock=lambda: now)
    written: list[dict[str, object]] = []

    def write(event: str, **fields: object) -> None:
        written.append({"event": event, **fields})

    assert [lines.shows(write) for _ in range(1000)] == [True] * 3 + [False] * 997
    assert written == []
    now = INTERVAL
    assert lines.shows(write)
    assert written == [{"event": "authentication_failures_not_shown", "count": 997}]
    now = 2 * INTERVAL
    assert lines.shows(write)
    assert len(written) == 1
