from actors.upstream.retry_budget import BURST, SHARE, RetryBudget


def test_a_burst_then_a_share() -> None:
    """The saved burst can be used at once; after that, repeated calls are a share of the first ones."""
    budget = RetryBudget()
    assert [budget.take() for _ in range(int(BURST) + 1)] == [True] * int(BURST) + [False]
    taken = 0
    for _ in range(1000):
        budget.count_first_call()
        taken += budget.take()
    assert abs(taken - 1000 * SHARE) <= 1


def test_no_more_is_saved_up_than_a_burst() -> None:
    """A quiet week does not save up for a storm."""
    budget = RetryBudget()
    for _ in range(10_000):
        budget.count_first_call()
    assert sum(budget.take() for _ in range(1000)) == BURST
