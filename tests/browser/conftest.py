"""A real Chromium, if it is installed."""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.local_service import local_service, missing

if TYPE_CHECKING:
    from playwright.async_api import Browser

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser") or ""


def absent() -> str:
    """Return why no browser can be used; empty if one can."""
    if not CHROMIUM:
        return "there is no chromium (on Debian: the package chromium)"
    return "" if find_spec("playwright") else "playwright is not installed"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that need a browser, with the reason, if there is none."""
    reason = absent()
    for item in items:
        if reason and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
async def chromium() -> AsyncIterator["Browser"]:
    """A headless browser."""
    from playwright.async_api import async_playwright  # noqa: PLC0415 - it may not be there

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest.fixture(scope="session")
def playground(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service with the real local model."""
    if missing():
        pytest.skip(missing())
    with local_service(root, tmp_path_factory.mktemp("service")) as address:
        yield address


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of screenshots: ``SCREENSHOTS=docs/images`` renews those of the documentation."""
    wanted = os.environ.get("SCREENSHOTS")
    return Path(wanted) if wanted else tmp_path_factory.mktemp("pictures")
