"""The environment of every test: none of the developer's settings, and the same Hypothesis examples each time."""

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import settings

from actors.testing import ScriptedUpstream

SETTING = re.compile(r"^#? ?([A-Z][A-Z0-9_]+)=", re.MULTILINE)

settings.register_profile("repeatable", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("explore", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _bare_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove every setting that the developer has exported: a test sets what it needs."""
    ours = set(SETTING.findall((root / ".env.example").read_text(encoding="utf-8")))
    for name in list(os.environ):
        if name in ours or name == "NODE_ENV" or name.startswith("OTEL_"):
            monkeypatch.delenv(name)


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """A scripted upstream."""
    async with ScriptedUpstream() as scripted:
        yield scripted
