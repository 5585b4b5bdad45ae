"""Mistakes that only show under load, looked for in the code itself: each is one that others have paid for."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

FOLDERS = ("actors", "protocol", "service")
CANCELLED = {"CancelledError", "BaseException", ""}
QUEUES = {"Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"}
SPANS = {"attach", "start_as_current_span", "use_span"}
CONTEXTS = {"asynccontextmanager", "contextmanager"}

BOUNDED_OTHERWISE = {
    "actors/upstream/fair_queue.py": "the queue as a whole: one more call is refused, or takes another tenant's place",
    "actors/requests/store.py": "at most as many as there may be requests",
    "actors/runtime/mailbox.py": "its capacity, but for the system's own messages, of which there is one of a kind",
    "actors/runtime/supervision.py": "what is older than the window goes, and one too many ends the actor",
    "actors/wire/pool.py": "one for each call that waits for a connection, and concurrency limiters bound the calls",
    "actors/testing/upstream.py": "as many as a test has scripted",
    "service/logging.py": "its capacity; a line more is dropped and counted",
}
TELLS = {
    "state": {"cache"},
    "attempt": {"state"},
    "hedge": {"state"},
}
TOLD = dict.fromkeys(("sink", "self._message.sink", "self._sink"), "state")
WITHIN = {"self._race"}  # passes on to its own sink, in the same module


@pytest.fixture(scope="module")
def trees(root: Path) -> dict[str, ast.Module]:
    """Every module that runs in the service or in an embedder's program."""
    paths = sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py"))
    return {path.relative_to(root).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def called(node: ast.AST) -> str:
    """The last part of what a call calls; empty for what is no call."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def names(node: ast.expr | None) -> set[str]:
    """What an ``except`` or a ``suppress`` names, by the last part; an empty name where it names nothing."""
    if node is None:
        return {""}
    if isinstance(node, ast.Tuple):
        return set().union(*map(names, node.elts))
    return {node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")}


def own(function: ast.AST) -> Iterator[ast.AST]:
    """Every node of a function, but for what stands in functions within it."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from own(child)


def test_no_cancellation_is_swallowed(trees: dict[str, ast.Module]) -> None:
    """Whatever catches one has a way on which it raises it again, and nothing suppresses one."""
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and names(node.type) & CANCELLED:
                again = [raised for raised in own(node) if isinstance(raised, ast.Raise) and raised.exc is None]
                assert again, f"{path}:{node.lineno}"
            if called(node) == "suppress" and isinstance(node, ast.Call):
                assert not set().union(*map(names, node.args)) & CANCELLED, f"{path}:{node.lineno}"


def test_a_time_limit_is_a_scope(trees: dict[str, ast.Module]) -> None:
    """``asyncio.wait_for`` can lose a cancellation on the oldest Python that we support."""
    for path, tree in trees.items():
        used = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "wait_for"]
        assert not [node for node in used if isinstance(node.value, ast.Name) and node.value.id == "asyncio"], path


def test_every_queue_has_a_bound(trees: dict[str, ast.Module]) -> None:
    """A queue is a mailbox; a deque has a bound of its own, or stands in the table with what bounds it."""
    without = set()
    for path, tree in trees.items():
        for node in ast.walk(tree):
            assert called(node) not in QUEUES, f"{path}:{getattr(node, 'lineno', 0)}"
            bounds = {word.arg for word in node.keywords} if isinstance(node, ast.Call) else set()
            if called(node) == "deque" and "maxlen" not in bounds:
                without.add(path)
    assert without == set(BOUNDED_OTHERWISE)


def test_every_task_has_an_owner(trees: dict[str, ast.Module]) -> None:
    """The loop holds tasks weakly: each is kept by whoever starts it, or belongs to a group."""
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and called(node.value) in {"create_task", "ensure_future"}:
                raise AssertionError(f"{path}:{node.lineno}")


def test_no_span_is_open_across_a_yield(trees: dict[str, ast.Module]) -> None:
    """Whoever iterates may go on in another context, or never: what a generator attaches it might never detach."""
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            within = list(own(node))
            yields = any(isinstance(one, ast.Yield | ast.YieldFrom) for one in within)
            opens = any(called(one) in SPANS for one in within)
            manages = bool({name for one in node.decorator_list for name in names(one)} & CONTEXTS)
            assert not (yields and opens) or manages, f"{path}:{node.lineno}"


def test_tells_go_one_way(trees: dict[str, ast.Module]) -> None:
    """Who waits for room in whose mailbox is declared, and has no cycle: two full ones never wait for each other.

    Messages that never wait (``post``), asks, which have a deadline and know their chain, and results of piped work,
    which are let into a full mailbox, need no such order.
    """
    found: dict[str, set[str]] = {}
    for path, tree in trees.items():
        if not path.startswith("actors/") or path.startswith(("actors/runtime/", "actors/testing/")):
            continue
        waited = [node.value for node in ast.walk(tree) if isinstance(node, ast.Await)]
        for node in waited:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "tell":
                whom = ast.unparse(node.func.value)
                if whom not in WITHIN:
                    found.setdefault(Path(path).stem, set()).add(TOLD.get(whom, whom))
    assert found == TELLS
    TopologicalSorter(TELLS).prepare()
