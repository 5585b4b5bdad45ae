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
