"""The Makefile: which Python it takes."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("script", "found"),
    [('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.9.1\n', "Python 3.9.1"), ("", "not there")],
)
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_another_python_is_asked_for(root: Path, tmp_path: Path, script: str, found: str) -> None:
    """With one that is too old, or none, nothing is installed: the message says what is needed, and how to choose."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(root / name, tmp_path)
    python = tmp_path / "python"
    if script:
        python.write_text(script, encoding="utf-8")
        python.chmod(0o755)
    command = ["make", "run", f"PYTHON={python}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603 - our own Makefile
    assert done.returncode != 0
    assert f"Tidegate needs Python 3.11 or newer, and {python} is {found}." in done.stdout
    assert "make run PYTHON=" in done.stdout
    assert not (tmp_path / ".venv").exists()


def test_nothing_is_said_to_be_served_before_it_is_bound(root: Path) -> None:
    """The service itself logs `serving`, once it listens; `make run` only says that it starts."""
    recipe = (root / "Makefile").read_text(encoding="utf-8").partition("\nrun: ")[2].partition("\n\n")[0]
    assert "Starting." in recipe
    assert "Serving" not in recipe


def test_the_versions_of_python_are_the_same_everywhere(root: Path) -> None:
    """The classifiers are those that the README says were tried, from the oldest that is required on."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    classified = [found[1] for line in project["classifiers"] if (found := re.search(r":: (3\.\d+)$", line))]
    (tried,) = re.findall(r"\(tried: ([\d., ]+)\)", (root / "README.md").read_text(encoding="utf-8"))
    assert classified == tried.split(", ")
    assert project["requires-python"] == f">={classified[0]}"
