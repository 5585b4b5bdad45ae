"""A visitor of the playground: opens the page, asks, and waits for what the views show."""

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, Locator, Page

    from tests.service.bench import Call, Service

PATIENCE: Final = 15_000  # ms
PLUG: Final = "Pull the plug"
POLICY: Final = "Content Security Policy"
BACK: Final = "Plug it back in"


@asynccontextmanager
async def visiting(browser: "Browser", address: str, **context: Any) -> "AsyncIterator[Page]":  # noqa: ANN401 - options
    """Open the page in a context of its own; nothing may go wrong in its scripts, nor be blocked by its policy."""
    opened = await browser.new_context(**context)
    page = await opened.new_page()
    page.set_default_timeout(PATIENCE)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if POLICY in message.text else None)
    await page.goto(address)
    yield page
    assert wrong == []
    await opened.close()


async def ask(page: "Page", service: "Service", prompt: str = "hi") -> "Call":
    """Send a prompt, and return the call that reaches the gateway, once the view follows it."""
    await page.fill("#prompt", prompt)
    await page.press("#prompt", "Control+Enter")
    call = await service.call()
    await page.locator(".request").first.locator('.view[data-state="running"]').wait_for()
    return call


def view(page: "Page", number: int) -> "Locator":
    """Return a view by its number."""
    return page.get_by_role("article", name=f"View {number} of ")


async def until(element: "Locator", text: str) -> None:
    """Wait until an element has a text."""
    await element.filter(has_text=text).first.wait_for()


async def button(page: "Page", name: str, number: int = 1) -> None:
    """Press a button of a view."""
    await view(page, number).get_by_role("button", name=name, exact=True).click()


async def ticked(page: "Page") -> list[str | None]:
    """Return the steps of the hint that are ticked off."""
    steps = await page.locator("#hint li[data-done]").all()
    return [await step.get_attribute("data-step") for step in steps]


def row(page: "Page", name: str) -> "Locator":
    """Return a row of the timeline, by its name."""
    return page.locator(".timeline .row").filter(has=page.locator(".name", has_text=name))
