"""Identifiers."""

from protocol import ids


def test_a_ulid_is_its_time_and_random_digits() -> None:
    """A ULID has ten characters of milliseconds and sixteen random ones, in Crockford's alphabet."""
    first, second = ids.ulid(0), ids.ulid((1 << 48) - 1)
    assert first.startswith("0000000000")
    assert second.startswith("7ZZZZZZZZZ")
    assert len(first) == len(second) == 26
    assert set(first + second) <= set(ids.CROCKFORD)
    assert ids.ulid(1469918176385)[:10] == "01ARYZ6S41"


def test_ids_sort_by_time_and_are_unique() -> None:
    """A later id is greater, and two ids of the same millisecond differ."""
    assert ids.ulid(1000) < ids.ulid(1001)
    assert len({ids.request_id() for _ in range(1000)}) == 1000


def test_an_epoch_is_short_and_new() -> None:
    """An epoch is eight lower-case characters, and no two are equal."""
    epochs = {ids.epoch() for _ in range(1000)}
    assert len(epochs) == 1000
    assert all(len(epoch) == 8 and epoch == epoch.lower() for epoch in epochs)
