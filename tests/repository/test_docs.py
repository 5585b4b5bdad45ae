"""The pages: the tests that they name exist, their links lead to files, and the program that they show runs."""

import ast
import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from actors.testing import ScriptedUpstream, say
from tests.local_service import environment

TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)\)")
FILE = re.compile(r"`((?:protocol|actors|service|docs|tests)/[\w/.-]*)`")
PROGRAM = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def pages(root: Path) -> dict[Path, str]:
    """Every page, with its text."""
    found = [*(root / "docs").rglob("*.md"), *(root / "examples").rglob("*.md")]
    return {path: path.read_text(encoding="utf-8") for path in found}


def test_the_tests_that_a_page_names_are_there(root: Path, pages: dict[Path, str]) -> None:
    """Each test that a page names exists."""
    named = {pair for text in pages.values() for pair in TEST.findall(text)}
    assert named
    for name, function in sorted(named):
        tree = ast.parse((root / name).read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert function in functions, name


def test_a_link_leads_somewhere(pages: dict[Path, str]) -> None:
    """Each relative link of a page leads to a file."""
    for path, text in pages.items():
        assert [link for link in LINK.findall(text) if not (path.parent / link).exists()] == [], path


@pytest.mark.parametrize(
    ("gate", "printed"),
    [(True, "answered: falafel\n"), (False, "stopped by gate\n"), (None, "gate failed: schema_mismatch\n")],
)
async def test_the_pipeline_runs(root: Path, pages: dict[Path, str], gate: object, printed: str) -> None:
    """The program on the page of pipelines reaches each of its outcomes."""
    (program,) = PROGRAM.findall(pages[root / "docs" / "pipeline.md"])
    first = json.dumps({"food": gate, "language": "en", "confidence": 0.9})
    async with ScriptedUpstream(*map(say, [first, '{"text": "falafel"}'] if gate else [first] * 3)) as upstream:
        variables = environment(root, OPENAI_API_KEY="made-up", OPENAI_BASE_URL=upstream.openai_url)
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            env=variables,
        )
    assert (done.stdout, done.stderr) == (printed, "")


def test_the_actor_and_its_test_run(root: Path, pages: dict[Path, str], tmp_path: Path) -> None:
    """The program on the page of actors prints its sum, and the tests beside it pass."""
    program, test, probe = PROGRAM.findall(pages[root / "docs" / "actors.md"])
    (tmp_path / "usage.py").write_text(program, encoding="utf-8")
    (tmp_path / "test_usage.py").write_text(test, encoding="utf-8")
    (tmp_path / "test_limit.py").write_text(probe, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n", encoding="utf-8")
    variables = environment(root)
    command = [sys.executable, "usage.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False, env=variables)  # noqa: S603 - our own page
    assert (done.stdout, done.stderr) == ("5000\n", "")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:langsmith_plugin"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False, env=variables)  # noqa: S603 - the same
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_the_files_that_the_architecture_names_are_there(root: Path, pages: dict[Path, str]) -> None:
    """Each file that the page of the architecture names exists."""
    named = set(FILE.findall(pages[root / "docs" / "architecture.md"]))
    assert len(named) > 40
    assert sorted(name for name in named if not (root / name).exists()) == []
