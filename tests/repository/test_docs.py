"""The pages: the tests that they name exist, their links lead to files, and the program that they show runs."""

import ast
import asyncio
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from actors.testing import ScriptedUpstream, say
from docs import generate
from protocol.errors import PROBLEMS
from service.config.settings import Settings, load_settings
from service.server.server import EXIT_TIMEOUT
from tests.local_service import environment

TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)\)")
FILE = re.compile(r"`((?:protocol|actors|service|docs|tests)/[\w/.-]*)`")
ANCHOR = re.compile(r"\]\(([^)#:]*)#([^)]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
DOTTED = re.compile(r"`((?:actors|asyncio|examples|protocol|service|structlog)(?:\.\w+)+)")
VARIABLE = re.compile(r"`([A-Z]+(?:_[A-Z]+)+)\b")
YAML = re.compile(r"^```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE)
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


def test_a_link_leads_to_a_heading(pages: dict[Path, str]) -> None:
    """Each link into a page leads to one of its headings."""
    for path, text in pages.items():
        for name, anchor in ANCHOR.findall(text):
            target = path if not name else (path.parent / name).resolve()
            assert anchor in {_anchor(heading) for heading in HEADING.findall(pages[target])}, (path.name, name, anchor)


def test_every_page_is_in_the_index(root: Path, pages: dict[Path, str]) -> None:
    """The index links each page beside it."""
    linked = set(LINK.findall(pages[root / "docs" / "index.md"]))
    assert sorted(path.name for path in pages if path.parent == root / "docs" and path.name not in linked) == [
        "index.md"
    ]


def test_what_stands_for_a_name_is_there(root: Path, pages: dict[Path, str]) -> None:
    """Each dotted name of the page of names can be imported, and each variable of the new pages is a setting."""
    names = DOTTED.findall(pages[root / "docs" / "names.md"])
    assert len(names) > 30
    for name in names:
        assert pkgutil.resolve_name(name) is not None, name
    for page in ("names.md", "troubleshooting.md", "proxies.md", "kubernetes.md"):
        for variable in VARIABLE.findall(pages[root / "docs" / page]):
            known = variable.lower() in Settings.model_fields or variable in ("NODE_ENV", "USER_NOT_FOUND")
            assert known, (page, variable)


def test_the_error_classes_that_people_look_for_have_a_place(root: Path, pages: dict[Path, str]) -> None:
    """Each is in the table of errors or on the page of names; each code that stands for one exists."""
    text = pages[root / "docs" / "errors.md"] + pages[root / "docs" / "names.md"]
    wanted = (
        "DatabaseError CacheError RateLimitError JobQueueError ExternalAPIError AIAPIError AIQuotaExceededError "
        "FeatureGateError PlanLimitExceededError ValidationError AuthenticationError AuthorizationError StorageError "
        "NetworkError ConfigurationError InitializationError NotFoundError ConflictError TimeoutError SystemError"
    )
    assert [name for name in wanted.split() if f"`{name}`" not in text] == []
    assert generate.LOOKED_FOR.keys() <= PROBLEMS.keys()


def test_a_stop_fits_into_the_pages_grace_periods(root: Path, pages: dict[Path, str]) -> None:
    """Of systemd's unit, and of the Kubernetes deployment with its preStop."""
    (unit,) = re.findall(r"^TimeoutStopSec=(\d+)$", pages[root / "docs" / "systemd.md"], re.MULTILINE)
    assert int(unit) > load_settings(None).shutdown_grace_seconds + EXIT_TIMEOUT
    (deployment,) = YAML.findall(pages[root / "docs" / "kubernetes.md"])
    pod = yaml.safe_load(deployment)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    variables = {item["name"].lower(): item["value"] for item in container["env"]}
    settings = load_settings(None, **variables, api_keys="a-key-of-the-tests")
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > pause + settings.shutdown_grace_seconds + EXIT_TIMEOUT
    assert container["ports"][0]["containerPort"] == settings.port


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


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
    """The programs on the page of actors print what they say, and the tests beside them pass."""
    program, test, probe, logs, limits = PROGRAM.findall(pages[root / "docs" / "actors.md"])
    (tmp_path / "usage.py").write_text(program, encoding="utf-8")
    (tmp_path / "test_usage.py").write_text(test, encoding="utf-8")
    (tmp_path / "test_limit.py").write_text(probe, encoding="utf-8")
    (tmp_path / "test_logs.py").write_text(logs, encoding="utf-8")
    (tmp_path / "limits.py").write_text(limits, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n", encoding="utf-8")
    variables = environment(root)
    for name, printed in (("usage.py", "5000\n"), ("limits.py", "out of time True\n")):
        command = [sys.executable, name]
        done = subprocess.run(  # noqa: S603 - our own page
            command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False, env=variables
        )
        assert (done.stdout, done.stderr) == (printed, "")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:langsmith_plugin"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False, env=variables)  # noqa: S603 - the same
    assert "5 passed" in done.stdout, done.stdout + done.stderr


def test_the_files_that_the_architecture_names_are_there(root: Path, pages: dict[Path, str]) -> None:
    """Each file that the page of the architecture names exists."""
    named = set(FILE.findall(pages[root / "docs" / "architecture.md"]))
    assert len(named) > 40
    assert sorted(name for name in named if not (root / name).exists()) == []
