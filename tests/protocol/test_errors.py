"""The exception tree and the table of codes."""

from collections.abc import Iterator

from protocol import errors
from protocol.errors import LONGEST_CAUSE, PROBLEMS, ActorFailed, TidegateError


def tree(kind: type[TidegateError]) -> Iterator[type[TidegateError]]:
    """Give every class of the tree that ``protocol.errors`` defines."""
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


def test_every_class_has_a_row_and_a_place_in_the_drawing() -> None:
    """A failure that is raised by its class alone reads as what it is."""
    for kind in tree(TidegateError):
        assert kind.code in PROBLEMS, kind
        assert f" {kind.__name__}" in (errors.__doc__ or ""), kind
        assert kind().detail == PROBLEMS[kind.code].title


def test_every_row_says_what_to_do() -> None:
    """A code has a status of a failure, a title and a remedy; one that ends a socket has a close code."""
    for code, problem in PROBLEMS.items():
        assert 400 <= problem.status < 600, code
        assert problem.title, code
        assert problem.remedy.endswith("."), code
        assert problem.close in {0, 1011} or 4000 <= problem.close < 5000, code


def test_an_unknown_code_reads_as_a_fault_of_ours() -> None:
    """A code that is no row never fails where it is looked up."""
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
