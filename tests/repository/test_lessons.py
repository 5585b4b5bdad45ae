"""Static checks of the code for mistakes that show only under load; ``docs/lessons.md`` has the list."""

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
    "actors/upstream/fair_queue.py": "the whole queue: one more call is refused, or replaces another tenant's call",
    "actors/runtime/mailbox.py": "its capacity; of the runtime's own commands there is at most one of each class",
    "actors/runtime/supervision.py": "entries older than the window are dropped, and one too many ends the actor",
    "actors/wire/pool.py": "one for each call that waits for a connection; concurrency limiters bound the calls",
    "actors/testing/upstream.py": "the replies of a test's script",
    "service/auth/grants.py": "calls and sockets that are open, each once for each change of their rights",
    "service/logging/writer.py": "its capacity; one more line is dropped and counted",
    "service/websocket/reader.py": "MAX_WAITING: then nothing more is parsed",
}
TELLS = {
    "state": {"cache"},
    "attempt": {"state"},
    "hedge": {"state"},
}
SINKS = dict.fromkeys(("sink", "self._message.sink", "self._sink"), "state")
WITHIN = {"self._race"}  # forwards to its own sink, in the same module


@pytest.fixture(scope="module")
def trees(root: Path) -> dict[str, ast.Module]:
    """Every module that runs in the service or in an embedder's program."""
    paths = sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py"))
    return {path.relative_to(root).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def called(node: ast.AST) -> str:
    """The last part of a call's function name; empty if the node is not a call."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def names(node: ast.expr | None) -> set[str]:
    """The names of an ``except`` or a ``suppress``, by the last part; an empty name if it has none."""
    if node is None:
        return {""}
    if isinstance(node, ast.Tuple):
        return set().union(*map(names, node.elts))
    return {node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")}


def own(function: ast.AST) -> Iterator[ast.AST]:
    """Every node of a function, without those of nested functions."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from own(child)


def test_no_cancellation_is_swallowed(trees: dict[str, ast.Module]) -> None:
    """Code that catches a cancellation has a ``raise`` for it, and no ``suppress`` names one."""
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and names(node.type) & CANCELLED:
                again = [raised for raised in own(node) if isinstance(raised, ast.Raise) and raised.exc is None]
                assert again, f"{path}:{node.lineno}"
            if called(node) == "suppress" and isinstance(node, ast.Call):
                assert not set().union(*map(names, node.args)) & CANCELLED, f"{path}:{node.lineno}"


def test_a_time_limit_is_a_scope(trees: dict[str, ast.Module]) -> None:
    """``asyncio.wait_for`` is not used: it can lose a cancellation on the oldest supported Python."""
    for path, tree in trees.items():
        used = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "wait_for"]
        assert not [node for node in used if isinstance(node.value, ast.Name) and node.value.id == "asyncio"], path


def test_every_queue_has_a_bound(trees: dict[str, ast.Module]) -> None:
    """No queue is made except mailboxes; a deque has a ``maxlen``, or is in the table with its other bound."""
    without = set()
    for path, tree in trees.items():
        for node in ast.walk(tree):
            assert called(node) not in QUEUES, f"{path}:{getattr(node, 'lineno', 0)}"
            bounds = {word.arg for word in node.keywords} if isinstance(node, ast.Call) else set()
            if called(node) == "deque" and "maxlen" not in bounds:
                without.add(path)
    assert without == set(BOUNDED_OTHERWISE)


def test_every_task_has_an_owner(trees: dict[str, ast.Module]) -> None:
    """The loop holds tasks weakly, so the code that starts a task keeps it, or a group does."""
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and called(node.value) in {"create_task", "ensure_future"}:
                raise AssertionError(f"{path}:{node.lineno}")


def test_no_span_is_open_across_a_yield(trees: dict[str, ast.Module]) -> None:
    """A generator may be resumed in another context, or never, so it must not attach a span across a ``yield``."""
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
    """The table of modules that wait for room in a mailbox has no cycle: two full mailboxes never wait for each other.

    Messages that never wait (``post``), asks (which have a deadline and detect cycles), and results of piped work
    (which enter a full mailbox) need no such order.
    """
    found: dict[str, set[str]] = {}
    for path, tree in trees.items():
        if not path.startswith("actors/") or path.startswith(("actors/runtime/", "actors/testing/")):
            continue
        waited = [node.value for node in ast.walk(tree) if isinstance(node, ast.Await)]
        for node in waited:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "tell":
                receiver = ast.unparse(node.func.value)
                if receiver not in WITHIN:
                    found.setdefault(Path(path).stem, set()).add(SINKS.get(receiver, receiver))
    assert found == TELLS
    TopologicalSorter(TELLS).prepare()
