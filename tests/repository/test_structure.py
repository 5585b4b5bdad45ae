"""The structure command: it finds no fault in this repository, and finds the faults of the test trees."""

from pathlib import Path

import pytest

from tests.repository.structure import LAYERS, complex_functions, cycle_in, depth_of, examine, main


def write(root: Path, files: dict[str, str]) -> None:
    """Write a tree of the three layers with these modules."""
    for layer in LAYERS:
        (root / layer).mkdir()
        (root / layer / "__init__.py").touch()
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_has_no_fault(root: Path, layer: str) -> None:
    """No cycle, no import of a higher layer, a bounded depth, and one meaning for each public class name."""
    assert examine(root, layer).faults == ()


def test_no_function_is_too_complex(root: Path) -> None:
    """No function has a cyclomatic complexity above 12."""
    assert complex_functions(root) == []


def test_it_prints_what_it_finds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints each layer's packages, their imports, the number of imports, and the depth."""
    write(
        tmp_path,
        {
            "actors/a/one.py": "import actors.b.two",
            "actors/b/two.py": "",
            "actors/a/__init__.py": "",
            "actors/c.py": "from actors import a",
        },
    )
    assert main(tmp_path) == 0
    assert "actors: 3 packages, 2 imports between them, depth 3\n    a  b\n    b\n    c  a\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        (
            {"protocol/a.py": "def f():\n    import service.b\n", "service/b.py": ""},
            "protocol.a imports service.b of a higher",
        ),
        (
            {"actors/a.py": "from actors import b", "actors/b.py": "from actors.a import c"},
            "actors.a -> actors.b -> actors.a",
        ),
        (
            {"actors/a/x.py": "import actors.a.y", "actors/a/y.py": "import actors.a.x"},
            "actors.a.x -> actors.a.y -> actors.a.x",
        ),
        (
            {"actors/a/x.py": "class Leg: ...", "actors/b.py": "class Leg: ..."},
            "actors: the class name Leg stands for 2 things",
        ),
        (
            {f"actors/m{n}.py": f"import actors.m{n + 1}" for n in range(5)} | {"actors/m5.py": ""},
            "actors: the longest chain has 6 packages, at most 5",
        ),
        (
            {"service/a.py": "def f(x):\n" + "".join(f"    if x == {n}: return {n}\n" for n in range(12))},
            "`f` is too complex (13 > 12)",
        ),
    ],
)
def test_it_names_each_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: dict[str, str], fault: str
) -> None:
    """After a fault the command returns 1, and its line names the place."""
    write(tmp_path, files)
    assert main(tmp_path) == 1
    assert fault in capsys.readouterr().out


def test_cycles_and_depth() -> None:
    """The longest chain is counted in packages; a diamond is no cycle."""
    diamond = {"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set[str]()}
    assert (cycle_in(diamond), depth_of(diamond)) == ([], 3)
    assert cycle_in({**diamond, "d": {"b"}}) == ["b", "d"]
