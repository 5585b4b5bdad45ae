"""The table of limits: its rows are true."""

import pytest

from protocol.errors import PROBLEMS
from service.config.settings import Settings
from service.limits.bound import Bound
from service.limits.table import GROUPS

BOUNDS = [bound for bounds in GROUPS.values() for bound in bounds]
BOUNDING = ("max_", "_max_", "_entries", "_queue", "_concurrency", "_ttl_seconds", "_bytes", "_inputs")


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda bound: bound.name)
def test_a_row_is_true(bound: Bound) -> None:
    """The code is one of the table of errors, and the setting is there and has the same default."""
    assert bound.default > 0
    assert not bound.code or bound.code in PROBLEMS
    assert not bound.setting or Settings.model_fields[bound.setting].default == bound.default


def test_no_name_is_there_twice() -> None:
    """A bound is listed once in its group."""
    for bounds in GROUPS.values():
        names = [bound.name for bound in bounds]
        assert len(names) == len(set(names))


def test_every_setting_that_bounds_something_has_a_row() -> None:
    """A new setting of a bound needs a row."""
    named = {bound.setting for bound in BOUNDS}
    bounding = {name for name in Settings.model_fields if any(part in name for part in BOUNDING)}
    assert sorted(bounding - named) == []
