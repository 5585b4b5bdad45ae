"""``python -m tests.repository.structure``: the packages of each layer, the imports between them, and their faults.

For each layer (``protocol``, ``actors``, ``service``) it prints the top-level packages and modules with their imports
of each other, the number of these imports, and the depth: the longest chain of packages in which each imports the next.
It exits with 1 and names each fault if

* a layer imports from one above it;
* packages or modules on the same level import each other in a cycle, on any level of a layer;
* the depth of a layer is above its bound;
* a public class name stands for two things within a layer;
* a function has a cyclomatic complexity above 12 (ruff's C901 counts it, with ``noqa`` ignored).

Imports within functions and for the type checker count like all others. An ``__init__`` module counts as its package;
that of a layer (``actors/__init__.py``) is not counted.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

LAYERS: Final = ("protocol", "actors", "service")  # from the lowest to the highest
MAX_DEPTH: Final[Mapping[str, int]] = {"protocol": 5, "actors": 5, "service": 10}  # packages in the longest chain
MAX_COMPLEXITY: Final = 12

Graph = dict[str, set[str]]


class Module(msgspec.Struct, frozen=True):
    """One Python file: its dotted name, without ``__init__``, where it is, and its syntax tree."""

    name: str
    path: Path
    tree: ast.Module


class Layer(msgspec.Struct, frozen=True):
    """One layer of the source tree.

    Attributes:
        name: of the layer.
        packages: from each package or module on top to those it imports.
        depth: packages in the longest chain; 0 where there is a cycle.
        faults: one sentence each.
    """

    name: str
    packages: Graph
    depth: int
    faults: tuple[str, ...]

    @property
    def imports(self) -> int:
        """The number of imports between packages."""
        return sum(map(len, self.packages.values()))


def modules_of(root: Path, layer: str) -> list[Module]:
    """Return the modules of a layer, or of any package, sorted by name."""
    found = []
    for path in sorted((root / layer).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Module(name, path, ast.parse(path.read_text(encoding="utf-8"))))
    return found


def imports_of(module: Module, names: set[str]) -> set[str]:
    """Return those of ``names`` that ``module`` imports; ``from a import b`` is ``a.b`` if that is a module."""
    found: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & names
            found.update(inner)
            if node.module in names and len(inner) < len(node.names):
                found.add(node.module)
    return found


def graph_between(modules: Sequence[Module], package: str) -> Graph:
    """Return, for each package or module directly below ``package``, its imports on the same level."""
    below = package.count(".") + 2
    prefix = f"{package}."
    inside = [module for module in modules if module.name.startswith(prefix)]
    names = {module.name for module in inside}
    graph: Graph = {}
    for module in inside:
        child = _ancestor(module.name, below)
        beside = {_ancestor(name, below) for name in imports_of(module, names)}
        graph.setdefault(child, set()).update(beside - {child})
    return graph


def cycle_in(graph: Graph) -> list[str]:
    """Return the members of one cycle in their order, or nothing."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return path[path.index(node) :]
        if node in done:
            return []
        for other in sorted(graph.get(node, ())):
            if found := visit(other, [*path, node]):
                return found
        done.add(node)
        return []

    for node in sorted(graph):
        if found := visit(node, []):
            return found
    return []


def depth_of(graph: Graph) -> int:
    """Return the number of packages in the longest chain; the graph has no cycle."""
    known: dict[str, int] = {}

    def depth(node: str) -> int:
        if node not in known:
            known[node] = 1 + max((depth(other) for other in graph.get(node, ())), default=0)
        return known[node]

    return max(map(depth, graph), default=0)


def examine(root: Path, layer: str) -> Layer:
    """Return a layer with its faults, except those of complexity."""
    modules = modules_of(root, layer)
    faults = [*_imports_upwards(root, layer, modules), *_cycles(modules, layer), *_names_used_twice(modules, layer)]
    packages = graph_between(modules, layer)
    depth = 0 if cycle_in(packages) else depth_of(packages)
    if depth > MAX_DEPTH[layer]:
        faults.append(f"{layer}: the longest chain has {depth} packages, at most {MAX_DEPTH[layer]} are allowed")
    return Layer(layer, packages, depth, tuple(faults))


def public_classes(modules: Sequence[Module]) -> Iterator[tuple[str, str]]:
    """Yield the name of each public class on the top level of a module, with the module's name."""
    for module in modules:
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name, module.name


def complex_functions(root: Path) -> list[str]:
    """Return ruff's complaint for each function above the bound, in all code of the repository."""
    command = [
        *(sys.executable, "-m", "ruff", "check", "--isolated", "--ignore-noqa", "--select", "C901"),
        *("--config", f"lint.mccabe.max-complexity={MAX_COMPLEXITY}", "--output-format", "concise", "--quiet"),
        *(name for name in (*LAYERS, "tests", "benchmarks", "examples", "docs") if (root / name).is_dir()),
    ]
    run = subprocess.run(command, cwd=root, capture_output=True, check=False, text=True, timeout=60)  # noqa: S603 - our own tool
    if run.returncode not in {0, 1}:
        return [f"ruff could not count: {run.stderr.strip()}"]
    return [line for line in run.stdout.splitlines() if "C901" in line]


def report(layer: Layer) -> Iterator[str]:
    """Yield the output lines of a layer."""
    depth = f"depth {layer.depth}" if layer.depth else "in a cycle"
    yield f"{layer.name}: {len(layer.packages)} packages, {layer.imports} imports between them, {depth}"
    width = max((len(name) for name in layer.packages), default=0) - len(layer.name) - 1
    for name, others in sorted(layer.packages.items()):
        imported = " ".join(sorted(other.removeprefix(f"{layer.name}.") for other in others))
        yield f"    {name.removeprefix(f'{layer.name}.'):<{width}}  {imported}".rstrip()


def main(root: Path) -> int:
    """Print the structure; return 1 if it has a fault."""
    layers = [examine(root, name) for name in LAYERS]
    for layer in layers:
        print("\n".join(report(layer)), end="\n\n")
    faults = [fault for layer in layers for fault in layer.faults] + complex_functions(root)
    sound = "no cycle, no import of a higher layer, every public class name has one meaning within its layer"
    print("\n".join(faults) or sound)
    return bool(faults)


def _ancestor(name: str, parts: int) -> str:
    return ".".join(name.split(".")[:parts])


def _imports_upwards(root: Path, layer: str, modules: Sequence[Module]) -> Iterator[str]:
    above = LAYERS[LAYERS.index(layer) + 1 :]
    names = {module.name for other in above for module in modules_of(root, other)}
    for module in modules:
        for name in sorted(imports_of(module, names)):
            yield f"{module.name} imports {name} of a higher layer"


def _cycles(modules: Sequence[Module], layer: str) -> Iterator[str]:
    packages = {layer} | {name for module in modules if (name := module.name.rpartition(".")[0]).startswith(layer)}
    for package in sorted(packages):
        if cycle := cycle_in(graph_between(modules, package)):
            yield f"a cycle of imports: {' -> '.join([*cycle, cycle[0]])}"


def _names_used_twice(modules: Sequence[Module], layer: str) -> Iterator[str]:
    places: dict[str, list[str]] = {}
    for name, module in public_classes(modules):
        places.setdefault(name, []).append(module)
    for name, found in sorted(places.items()):
        if len(found) > 1:
            yield f"{layer}: the class name {name} stands for {len(found)} things: {', '.join(found)}"


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parents[2]))
