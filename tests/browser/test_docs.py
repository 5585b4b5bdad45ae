"""The page at ``/docs`` in a real browser: what it shows, its search, and examples that work as they are copied."""

import ast
import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.service.bench import open_service

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

KEY = "a-key-of-the-tests"
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}
pytestmark = pytest.mark.timeout(60)

OPEN_ALL = """
() => {
    document.querySelectorAll("details").forEach((one) => { one.open = true; });
    return document.querySelectorAll("details:not([data-seen])").length;
}
"""
EXAMPLES_OF_ALL = """
async (language) => {
    const found = {};
    localStorage.setItem("tidegate-language", language);
    for (const view of document.querySelectorAll(".operation")) {
        view.open = true;
        await new Promise((resolve) => setTimeout(resolve));
        [...view.querySelectorAll(".tabs button")].find((one) => one.textContent === language).click();
        found[view.id] = view.querySelector("pre").textContent;
    }
    return found;
}
"""
PARSE = "(text) => { new (Object.getPrototypeOf(async () => {}).constructor)(text); }"
INJECT = """
() => {
    const script = document.createElement("script");
    script.append("window.injected = true");
    document.body.append(script);
    return fetch("https://elsewhere.invalid/").then(() => "loaded", () => String(window.injected));
}
"""


@dataclass
class OpenPage:
    """A page that is open, what its console complained of, and every address that it loaded."""

    page: "Page"
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    async def operations(self) -> list[str]:
        """Return the names of the operations that are visible."""
        found: list[str] = await self.page.evaluate(
            "() => [...document.querySelectorAll('.operation')].filter((one) => one.checkVisibility())"
            ".map((one) => one.id)"
        )
        return found

    async def search(self, text: str) -> list[str]:
        """Search, and return the names of the operations that are left."""
        await self.page.fill("#search", text)
        return await self.operations()


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """The address of a service without keys."""
    async with open_service() as service:
        yield service.base


async def visit(browser: "Browser", url: str, **options: Any) -> OpenPage:  # noqa: ANN401 - of a browser's context
    """Open a page of the documentation."""
    context = await browser.new_context(**{"viewport": DESK, **options})
    visited = OpenPage(await context.new_page())
    visited.page.set_default_timeout(10_000)
    visited.page.on("console", lambda message: visited.complaints.append(message.text))
    visited.page.on("pageerror", lambda error: visited.complaints.append(str(error)))
    visited.page.on("request", lambda request: visited.asked.append(request.url))
    await visited.page.goto(url)
    await visited.page.locator("#errors:not([hidden])").wait_for()
    return visited


async def run(*command: str, **variables: str) -> str:
    """Return what a command prints."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, **variables}
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


async def test_it_shows_every_operation_by_group(chromium: "Browser", address: str, pictures: Path) -> None:
    """Each group is a heading; the page loads its own files only, says nothing on the console, and leads back."""
    visited = await visit(chromium, f"{address}/docs")
    page = visited.page
    document = await page.evaluate("() => fetch('/openapi.json').then((response) => response.json())")
    described = {one["operationId"] for methods in document["paths"].values() for one in methods.values()}
    assert set(await visited.operations()) == described
    headings = await page.locator("#groups > .group > h2").all_text_contents()
    assert headings == [tag["name"] for tag in document["tags"]]
    assert await page.locator("#codes > *").count() == len(document["x-errors"])
    await page.screenshot(path=pictures / "docs.png")
    assert visited.complaints == []
    assert all(url.startswith((address, "data:")) for url in visited.asked)
    await page.get_by_role("link", name="Playground", exact=True).click()
    await page.locator("#prompt").wait_for()


async def test_a_link_opens_an_operation(chromium: "Browser", address: str) -> None:
    """Its parameters, body, answers and errors are there, and the inner fields of its body one by one."""
    page = (await visit(chromium, f"{address}/docs#submitRequest")).page
    operation = page.locator("#submitRequest[open]")
    await operation.wait_for()
    assert "Idempotency-Key" in await operation.locator(".parameters").inner_text()
    body = operation.locator(".body")
    assert "≤ 3600000" not in await body.inner_text()
    await body.locator("summary", has_text="options").first.click()
    assert "≤ 3600000" in await body.inner_text()
    await operation.locator(".answers summary", has_text="422").click()
    explained = operation.get_by_role("link", name="idempotency_key_reused")
    await explained.click()
    assert "Use a new key" in await page.locator("main.error").inner_text()


async def test_the_search_leaves_what_has_all_words(chromium: "Browser", address: str) -> None:
    """It looks at paths, names, fields and errors; a slash on the keyboard leads to it; it says how many are left."""
    visited = await visit(chromium, f"{address}/docs")
    page, count = visited.page, len(await visited.operations())
    await page.keyboard.press("/")
    await page.keyboard.type("post /CANCEL")
    assert await visited.operations() == ["cancelRequest", "cancelResponse"]
    assert await page.locator("#count").inner_text() == f"2 of {count} operations"
    assert await page.locator("#groups > .group:not([hidden]) > h2").all_text_contents() == ["Requests", "OpenAI"]
    assert await visited.search("publication_too_large") == ["publish"]
    assert "submitRequest" in await visited.search("sessionId")
    for word in ("resume", "offset"):
        assert {"followRequest", "openSocket"} <= set(await visited.search(word)), word
    assert {"followRequest", "createChatCompletion"} <= set(await visited.search("sse"))
    assert "followRequest" in await visited.search("reconnect epoch")
    assert await visited.search("nothing has this") == []
    assert await page.locator("#nothing").is_visible()
    assert len(await visited.search("")) == count
    linked = await visit(chromium, f"{address}/docs?q=tickets")
    assert "createTicket" in await linked.operations()


@pytest.mark.parametrize(("language", "suffix"), [("curl", ".sh"), ("Python", ".py"), ("JavaScript", ".mjs")])
async def test_a_copied_example_works(
    chromium: "Browser", address: str, tmp_path: Path, language: str, suffix: str
) -> None:
    """What the button copies runs as it is, and calls this service."""
    command = {"curl": "bash", "Python": sys.executable, "JavaScript": "node"}[language]
    if shutil.which(command) is None or (language == "curl" and shutil.which("curl") is None):
        pytest.skip(f"there is no {command}")
    page = (await visit(chromium, f"{address}/docs", permissions=["clipboard-read", "clipboard-write"])).page
    for name, part in (("submitRequest", "requestId"), ("listModels", "owned_by"), ("publish", "position")):
        operation = page.locator(f"#{name}")
        await operation.locator("summary").first.click()
        await operation.get_by_role("button", name=language, exact=True).click()
        await operation.get_by_role("button", name="Copy").click()
        await operation.get_by_role("button", name="Copied").wait_for()
        copied = await page.evaluate("() => navigator.clipboard.readText()")
        example = tmp_path / f"{name}{suffix}"
        example.write_text(copied)
        assert part in await run(command, str(example))


async def test_every_example_can_be_parsed_and_has_the_key(chromium: "Browser", tmp_path: Path) -> None:
    """With keys, each operation but the public ones says where its key goes; all of them are valid programs."""
    async with open_service(api_keys=(KEY,)) as service:
        page = (await visit(chromium, f"{service.base}/docs")).page
        blank = await (await chromium.new_context()).new_page()
        for language in ("curl", "Python", "JavaScript"):
            examples = await page.evaluate(EXAMPLES_OF_ALL, language)
            assert len(examples) == await page.locator(".operation").count()
            assert "TIDEGATE_API_KEY" in examples["submitRequest"]
            assert "TIDEGATE_API_KEY" not in examples["getLiveness"]
            for text in examples.values():
                if language == "Python":
                    ast.parse(text)
                elif language == "JavaScript":
                    await blank.evaluate(PARSE, text)
            if language == "curl":
                script = tmp_path / "all.sh"
                script.write_text("\n".join(examples.values()))
                await run("bash", "-n", str(script))
                script.write_text(examples["listModels"])
                assert "owned_by" in await run("bash", str(script), TIDEGATE_API_KEY=KEY)


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
async def test_it_is_read_on_a_phone(
    chromium: "Browser", address: str, pictures: Path, scheme: str, is_dark: bool
) -> None:
    """With every operation, field and answer open, nothing is wider than the screen; it is light or dark."""
    visited = await visit(chromium, f"{address}/docs#followRequest", viewport=PHONE, color_scheme=scheme)
    page = visited.page
    await page.screenshot(path=pictures / f"docs-phone-{scheme}.png")
    for _ in range(2):  # what an operation has, then what its fields have
        await page.evaluate(OPEN_ALL)
        await page.wait_for_function(
            "() => [...document.querySelectorAll('.operation')].every((one) => one.dataset.filled)"
        )
    assert await page.evaluate("() => document.documentElement.scrollWidth") <= PHONE["width"]
    shade = await page.evaluate("() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(shade) < 3 * 128) == is_dark
    assert visited.complaints == []


async def test_the_policy_holds(chromium: "Browser", address: str) -> None:
    """A script in the page's text does not run, and nothing is loaded from another origin."""
    visited = await visit(chromium, f"{address}/docs")
    assert await visited.page.evaluate(INJECT) == "undefined"
    assert len([text for text in visited.complaints if "Content Security Policy" in text]) >= 2


async def test_a_document_that_is_missing_is_said(chromium: "Browser", address: str) -> None:
    """The page says what failed, and stays empty."""
    page = await (await chromium.new_context()).new_page()
    await page.route("**/openapi.json", lambda route: route.fulfill(status=503))
    await page.goto(f"{address}/docs")
    await page.locator("#notice:not([hidden])").wait_for()
    assert "503" in await page.locator("#notice").inner_text()
