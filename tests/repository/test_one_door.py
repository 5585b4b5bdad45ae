"""One object, one loop, one door: only `Run` writes to a request's log."""

import ast
from collections.abc import Iterator
from pathlib import Path

DOOR = "actors/requests/run.py"
LAYERS = ("protocol", "actors", "service")
LOG = "EventLog"
LOG_NAMES = frozenset({"log", "_log"})  # what a log is called wherever one is held
WRITES = frozenset({"append", "extend"})  # the writing methods of `EventLog`
ENDS = frozenset({"cut"})  # ends one request's view: `RequestStream`
EXCEPTIONS = {
    "actors/channels/channel.py": "its `log` is a `ChannelLog`: publications, of which the channel is the only writer",
}


def last_name(node: ast.expr) -> str:
    """The last name of `a.b.c`, empty for anything else."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def log_names(tree: ast.Module) -> frozenset[str]:
    """The names of logs in a module: the usual ones, and those assigned or annotated as a log."""
    found = set(LOG_NAMES)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and last_name(node.value) in LOG_NAMES:
            found.update(last_name(target) for target in node.targets)
        elif isinstance(node, ast.AnnAssign) and LOG in ast.unparse(node.annotation):
            found.add(last_name(node.target))
        elif isinstance(node, ast.arg) and node.annotation is not None and LOG in ast.unparse(node.annotation):
            found.add(node.arg)
    return frozenset(found - {""})


def writes(source: str) -> Iterator[str]:
    """Each call in a module that writes to a log, ends a view, or makes a log."""
    tree = ast.parse(source)
    names = log_names(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        makes = last_name(called) == LOG
        if isinstance(called, ast.Attribute):
            makes = makes or (called.attr in WRITES and last_name(called.value) in names) or called.attr in ENDS
        if makes:
            yield f"line {node.lineno}: {ast.unparse(called)}"


def test_only_the_run_writes_to_a_log(root: Path) -> None:
    """No other module makes a log, appends to one, or ends a request's view; the exceptions have their reason."""
    paths = [path for layer in LAYERS for path in (root / layer).rglob("*.py")]
    found = {str(path.relative_to(root)): list(writes(path.read_text(encoding="utf-8"))) for path in paths}
    writers = {name for name, calls in found.items() if calls}
    assert {name: found[name] for name in writers - EXCEPTIONS.keys()} == {DOOR: found[DOOR]}
    assert EXCEPTIONS.keys() - writers == set(), "an exception that nobody needs"


def test_a_second_writer_would_be_found() -> None:
    """Under the log's usual name, another name, or as an argument; and a list is no log."""
    assert list(writes("def f(run):\n    run.log.append(event)")) == ["line 2: run.log.append"]
    assert list(writes("def f(run):\n    entries = run.log\n    entries.extend(events)")) == ["line 3: entries.extend"]
    assert list(writes("def f(target: EventLog):\n    target.append(event)")) == ["line 2: target.append"]
    assert list(writes("def f(record):\n    record.stream.cut(event)")) == ["line 2: record.stream.cut"]
    assert list(writes("mine = EventLog()")) == ["line 1: EventLog"]
    assert list(writes("def f(found):\n    found.append(1)")) == []
