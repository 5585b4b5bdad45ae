"""The page at ``/docs`` in a real browser: what it shows, its search, and examples that work as they are copied."""

import asyncio
import re
import shutil
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from actors.testing import ScriptedUpstream
from tests.service.bench import open_service

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

KEY = "a-key-of-the-tests"
WIDTH = 390  # pixels of a phone
pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """A service without keys."""
    async with open_service() as service:
        yield service.base


async def visit(browser: "Browser", address: str, at: str = "", **context: object) -> "Page":
    """Open the page, and fail at whatever it complains of: a script's error, or what the policy forbids."""
    made = await browser.new_context(viewport={"width": 1280, "height": 900}, **context) if "viewport" not in context else (
        await browser.new_context(**context)
    )
    page = await made.new_page()
    page.complaints = []
    page.on("console", lambda message: page.complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    await page.goto(f"{address}/docs{at}")
    await page.locator("#groups .operation").first.wait_for(state="attached")
    return page
