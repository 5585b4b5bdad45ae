"""The runs under way: who may be joined, and what happens to a run's requests when it ends."""

from collections.abc import Iterator

from actors.requests.record import RequestRecord, Run
from actors.requests.store import RequestStore
from protocol.events import Event


class RunTable:
    """Runs by key and, where they may be shared, by fingerprint. It is bounded by the store that it is given.

    The router puts runs in; a run's own actor takes it out, in the same turn of the loop in which the log ends. So
    nobody ever joins a log that has ended, and no end can get lost on the way.

    Args:
        store: the requests that can still be asked for.
    """

    def __init__(self, store: RequestStore) -> None:
        self._store = store
        self._runs: dict[str, Run] = {}
        self._shared: dict[bytes, Run] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(tuple(self._runs.values()))

    def __getitem__(self, key: str) -> Run:
        return self._runs[key]

    def joinable(self, fingerprint: bytes) -> Run | None:
        """Return the run that a request with this fingerprint may share."""
        return self._shared.get(fingerprint)

    def add(self, run: Run, *, shared: bool) -> None:
        """Put in a run that begins; a ``shared`` one may be joined."""
        self._runs[run.key] = run
        if shared:
            self._shared[run.fingerprint] = run

    def close(self, run: Run) -> None:
        """Let nobody join ``run`` any more."""
        if self._shared.get(run.fingerprint) is run:
            del self._shared[run.fingerprint]

    def ended(self, run: Run) -> None:
        """Take out a run whose log has ended, and let the time of its requests begin. Again, it does nothing."""
        if self._runs.pop(run.key, None) is None:
            return
        self.close(run)
        for record in run.waiters.values():
            self._store.ended(record)
        run.waiters.clear()

    def leave(self, record: RequestRecord, event: Event) -> bool:
        """End one request with ``event``, and say whether its run is now without anybody.

        The last one does not leave: its end is the run's.
        """
        run = record.run
        if run.waiters.keys() == {record.request_id}:
            self.close(run)
            return True
        del run.waiters[record.request_id]
        record.stream.cut(event)
        self._store.ended(record)
        return False
