"""The README and the first steps: each block tagged ``run`` runs against a service with the real local model."""

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import jsonschema_rs
import pytest
from aiohttp import web

from service.http.operations import PAGES, operations_of
from service.server.app import add_surfaces
from tests.local_service import environment, local_service, needs_local_model

ROOT: Final = Path(__file__).resolve().parents[2]
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
FIRST_STEPS: Final = (ROOT / "docs" / "first-steps.md").read_text(encoding="utf-8")
ENDPOINTS: Final = (ROOT / "docs" / "endpoints.md").read_text(encoding="utf-8")
MAX_LINES: Final = 110  # of the README
BLOCK: Final = re.compile(r"^```(\w+) run\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS: Final = BLOCK.findall(README + FIRST_STEPS)
ADDRESS: Final = "http://127.0.0.1:3000"
LINK: Final = re.compile(r"\]\(([^)#:]+)\)")


@pytest.fixture(scope="module")
def address(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service with the real local model."""
    with local_service(root, tmp_path_factory.mktemp("service")) as address:
        yield address


@pytest.fixture
def run(root: Path, tmp_path: Path, address: str) -> "Run":
    """Run a block as a reader does."""
    return Run(root, tmp_path, address)


class Run:
    def __init__(self, root: Path, tmp_path: Path, address: str) -> None:
        self._root, self._tmp_path, self._address = root, tmp_path, address
        command = tmp_path / "tidegate"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m service.cli.main "$@"\n')
        command.chmod(0o755)

    def __call__(self, language: str, code: str) -> str:
        """Return what the block prints."""
        code = code.replace(ADDRESS, self._address)
        words = [sys.executable, "-c", code] if language == "python" else ["bash", "-euo", "pipefail", "-c", code]
        variables = environment(self._root, TIDEGATE_URL=self._address)
        variables["PATH"] = f"{self._tmp_path}:{variables['PATH']}"
        done = subprocess.run(  # noqa: S603 - our own README
            words, cwd=self._tmp_path, capture_output=True, text=True, timeout=50, check=False, env=variables
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def block(part: str) -> tuple[str, str]:
    """Return the one block that has ``part`` in it."""
    (found,) = [(language, code) for language, code in BLOCKS if part in code]
    return found


def test_every_way_in_has_a_block() -> None:
    """The README shows curl and the OpenAI SDK; the first steps show the terminal, a schema and a WebSocket."""
    assert [language for language, _ in BLOCKS] == ["bash", "python", "bash", "bash", "python"]


def test_the_readme_is_short() -> None:
    """The README has at most ``MAX_LINES`` lines; everything else is on a page of its own."""
    assert len(README.splitlines()) <= MAX_LINES


@needs_local_model
def test_ask(run: Run) -> None:
    """The command answers."""
    assert run(*block("tidegate ask")).strip()


@needs_local_model
def test_curl(run: Run) -> None:
    """The log ends with ``complete``, and the state has the same result."""
    printed = run(*block("curl -sS $url/$id "))
    assert "event: update" in printed
    data = re.findall(r"^event: complete\ndata: (.*)$", printed, re.MULTILINE)
    state = json.loads(printed.splitlines()[-1])
    assert state["assistantStatus"] == "completed"
    assert json.loads(data[0])["data"]["coreResult"] == state["coreResult"]


@needs_local_model
def test_curl_shows_what_is_wrong(run: Run, root: Path) -> None:
    """A refused request is shown, and no id is taken from its problem document."""
    refused = "'{\"messages\": []}'"
    for part, sent in (("curl -sS $url/$id ", r"'\{\"messages.*?\}'(?=\))"), ('"isFoodRelated"', r"'\{\n.*?\n\}'")):
        language, code = block(part)
        begun = re.sub(sent, lambda _: refused, code.partition("\n\ncurl")[0], flags=re.DOTALL)
        assert refused in begun
        printed = run(language, f'{begun}\necho "id=${{id-none}}"')
        assert '"code":"invalid_request"' in printed
        assert printed.endswith("id=none\n")
    script = (root / "examples/food_gate.sh").read_text(encoding="utf-8")
    assert "--fail-with-body" in script


@needs_local_model
def test_curl_with_a_schema(run: Run) -> None:
    """The result matches the schema in the block."""
    language, code = block('"isFoodRelated"')
    schema = json.loads(re.findall(r"-d '(\{.*?\n\})'", code, re.DOTALL)[0])["schema"]
    printed = run(language, code)
    result = json.loads(re.findall(r"^data: (.*)$", printed, re.MULTILINE)[0])["data"]["coreResult"]
    jsonschema_rs.validate(schema, result)


@needs_local_model
def test_websocket(run: Run) -> None:
    """The text comes, then the usage."""
    text, usage = run(*block("ws_connect")).rsplit("\n", 2)[0:2]
    assert text.strip()
    assert "outputTokens" in usage


@needs_local_model
def test_openai_sdk(run: Run) -> None:
    """The official SDK accepts the stream."""
    assert run(*block("openai.OpenAI")).strip()


def test_the_embedding_block_is_the_example(root: Path) -> None:
    """The block is the file without its docstring; another test runs the file."""
    (shown,) = re.findall(r"^```python\n(import asyncio.*?)^```$", FIRST_STEPS, re.MULTILINE | re.DOTALL)
    assert (root / "examples" / "embed.py").read_text(encoding="utf-8").endswith(shown)


def test_every_operation_is_listed() -> None:
    """The table of endpoints has each address of the service's OpenAPI description, but for the pages' files."""
    said = ENDPOINTS.replace("…/live`", "/api/health/live`").replace("…/ready`", "/api/health/ready`")
    said = said.replace("`GET …/{id}`, `POST …/{id}/cancel`", "`/v1/responses/{id}` `/v1/responses/{id}/cancel`")
    app = web.Application()
    add_surfaces(app)
    for operation in operations_of(app):
        if operation.tag != PAGES:
            assert f"{operation.template}`" in said, (operation.method, operation.template)


def test_links_lead_somewhere(root: Path) -> None:
    """Every relative link of the README and the docs leads to a file of the repository."""
    pages = [root / "README.md", *(root / "docs").glob("*.md")]
    for page in pages:
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_generated_pages_are_up_to_date(root: Path) -> None:
    """The generated pages agree with the code; `python docs/generate.py` writes them again."""
    pages = runpy.run_path(str(root / "docs" / "generate.py"))["PAGES"]
    assert [name for name, page in pages.items() if (root / "docs" / name).read_text(encoding="utf-8") != page()] == []
