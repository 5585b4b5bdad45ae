"""The exception tree and the table of codes."""

from collections.abc import Iterator

import pytest

from protocol import errors
from protocol.errors import LONGEST_CAUSE, PROBLEMS, ActorFailed, TidegateError


def tree(kind: type[TidegateError]) -> Iterator[type[TidegateError]]:
    """Give every class of the tree that ``protocol.errors`` defines."""
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


def test_every_class_has_a_row_and_a_line_in_the_tree() -> None:
    """Each exception class has a row of the table and a line in the tree."""
    for kind in tree(TidegateError):
        assert kind.code in PROBLEMS, kind
        assert f" {kind.__name__}" in (errors.__doc__ or ""), kind
        assert kind().detail == PROBLEMS[kind.code].title


def test_every_row_is_complete() -> None:
    """Each code has a status of 400 or more, a title and a remedy; close codes are 4000 or more, or 1011."""
    for code, problem in PROBLEMS.items():
        assert 400 <= problem.status < 600, code
        assert problem.title, code
        assert problem.remedy.endswith("."), code
        assert problem.close in {0, 1011} or 4000 <= problem.close < 5000, code


def test_an_unknown_code_is_an_internal_error() -> None:
    """An unknown code has the row of ``internal_error``."""
    assert TidegateError(code="no such code").problem is PROBLEMS["internal_error"]


def test_a_failed_actor_names_its_cause() -> None:
    """The text of ``ActorFailed`` has its cause, cut to a bound; its detail, which clients may see, has not."""
    failed = ActorFailed("usage failed")
    assert str(failed) == "usage failed"
    failed.__cause__ = ValueError("bad row")
    assert str(failed) == "usage failed: ValueError: bad row"
    assert failed.detail == "usage failed"
    failed.__cause__ = ValueError("x" * 10_000)
    assert len(str(failed)) < LONGEST_CAUSE + 50


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("shutting_down", "when the service is back"),
        ("shutting_down", "restart forgets"),
        ("request_not_found", "a restart forgets them all"),
        ("unrecoverable_position", "without a position"),
        ("unrecoverable_position", "a request's log, other than a channel"),
    ],
)
def test_a_remedy_is_true_of_one_node_and_of_channels(code: str, said: str) -> None:
    """No remedy counts on another server, or on a channel's snapshot."""
    assert said in PROBLEMS[code].remedy
    assert "another server" not in PROBLEMS[code].remedy
