"""The page's answers: Markdown that can do no harm, JSON by a schema, reasoning and tool calls."""

import json
from typing import TYPE_CHECKING, Final

import pytest

from protocol.events import Delta, ReasoningDelta, RefusalDelta, ToolCallDelta
from protocol.llm import ToolCall
from tests.browser.visitor import ask, button, until, view, visiting
from tests.service.bench import open_service

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = pytest.mark.timeout(60)

HARM: Final = (
    "<script>window.harmed = 1</script>",
    "<img src=x onerror='window.harmed = 1'>",
    "<svg onload='window.harmed = 1'><a href='javascript:window.harmed=1'>x</a></svg>",
    "<iframe srcdoc='<script>parent.harmed = 1</script>'></iframe>",
    "[a](javascript:window.harmed=1) [b](JaVaScRiPt:window.harmed=1) [c]( javascript:window.harmed=1)",
    "[d](java\tscript:window.harmed=1) [e](&#106;avascript:window.harmed=1) [f](data:text/html,<script>1</script>)",
    "[g](vbscript:x) [h](file:///etc/passwd) [i](//evil.example) [j](/api/health) [k](blob:null/x)",
    "![pixel](https://evil.example/pixel.png) ![p](data:image/svg+xml,<svg onload='window.harmed=1'/>)",
    "<https://evil.example/> <a href=\"https://evil.example\" onclick='window.harmed = 1'>click</a>",
    "**<b onmouseover='window.harmed = 1'>bold</b>** `<script>window.harmed = 1</script>`",
    "```html\n<script>window.harmed = 1</script>\n```",
    '```" onclick="window.harmed=1\n<b>x</b>\n```',
    "| <img src=x onerror=window.harmed=1> | b |\n|---|---|\n| <script>window.harmed=1</script> | c |",
    "> <style>* { display: none }</style>\n> <meta http-equiv=refresh content='0;url=https://evil.example'>",
    "- <form action='https://evil.example'><input name=x></form>",
    "# <base href='https://evil.example/'>",
)
"""What a model may be brought to write."""

LONG: Final = {
    "brackets": "[" * 60_000,
    "stars": "*a " * 20_000,
    "both": "**a *b _c ~~d " * 5000,
    "ticks": "`" * 30_000 + "``` `` ` " * 5000,
    "quotes": ">" * 20_000,
    "lists": "\n".join("  " * (index % 40) + "- x" for index in range(5000)),
    "links": "[a](" * 20_000,
    "pipes": "|" * 20_000 + "\n|---|\n" + "|" * 20_000,
    "dashes": "- " * 30_000,
}
"""Texts that are slow to read for a parser that goes back."""

ATTRIBUTES: Final = "(root) => [...root.querySelectorAll('*')].flatMap((node) => node.getAttributeNames())"
RENDER: Final = """
async ([text]) => {
    const { render } = await import("/web/markdown.js");
    const parent = document.createElement("div");
    document.body.append(parent);
    const begun = performance.now();
    render(parent, text);
    return { html: parent.innerHTML, text: parent.textContent, ms: performance.now() - begun };
}
"""


async def test_markdown_is_shown(chromium: "Browser") -> None:
    """The usual forms become elements; what the log has is one button away."""
    text = (
        "# Title\n\nSome *soft*, **strong** and ***both***, `code`, ~~gone~~, snake_case_name, 2 * 3 * 4.\n\n"
        "1. one\n2. two\n   - deep\n\n> said\n\n```py\nx = '**'\n```\n\n| a | b |\n|---|---|\n| 1 | **2** |\n\n---\n\n"
        "[here](https://example.com/a?b=c) and https://example.org/x."
    )
    async with open_service() as service, visiting(chromium, service.base) as page:
        call = await ask(page, service)
        await call.say(*(text[at : at + 7] for at in range(0, len(text), 7)))
        await call.end()
        await until(view(page, 1).locator(".status"), "complete")
        shown = view(page, 1).locator(".markdown")
        found = {tag: await shown.locator(tag).all_inner_texts() for tag in ("strong", "em", "del", "code", "li", "th")}
        assert found["strong"] == ["strong", "both", "2"]
        assert found["em"] == ["soft", "both"]
        assert found["code"] == ["code", "x = '**'"]
        assert (found["del"], found["th"]) == (["gone"], ["a", "b"])
        assert [item.split() for item in found["li"]] == [["one"], ["two", "deep"], ["deep"]]
        assert await shown.get_by_role("heading", name="Title").count() == 1
        assert [await link.get_attribute("href") for link in await shown.locator("a").all()] == [
            "https://example.com/a?b=c",
            "https://example.org/x",
        ]
        assert "snake_case_name, 2 * 3 * 4." in await shown.inner_text()
        await button(page, "Raw")
        assert await view(page, 1).locator(".text").text_content() == text


async def test_a_stream_of_markdown_keeps_its_nodes(chromium: "Browser") -> None:
    """A block that is finished is not drawn again, and any cut of the text ends the same."""
    text = "# A\n\nfirst **bold** text\n\n- one\n- two\n\n```\na\nb\n```\n\nlast [a](https://example.com)"
    async with open_service() as service, visiting(chromium, service.base) as page:
        same = await page.evaluate(
            """
            async ([text]) => {
                const { render } = await import("/web/markdown.js");
                const [grown, whole] = [document.createElement("div"), document.createElement("div")];
                render(whole, text);
                let kept = 0;
                let before = [];
                for (let end = 1; end <= text.length; end++) {
                    render(grown, text.slice(0, end));
                    const now = [...grown.children];
                    before.slice(0, -1).forEach((node, index) => now[index] === node && kept++);
                    if (before.slice(0, -1).some((node, index) => now[index] !== node)) kept = -Infinity;
                    before = now;
                }
                return { same: grown.innerHTML === whole.innerHTML, kept: kept > 0 };
            }
            """,
            [text],
        )
        assert same == {"same": True, "kept": True}


async def test_markdown_does_no_harm(chromium: "Browser") -> None:
    """HTML stays text; no script runs, nothing is loaded, and links lead to safe addresses only, also in a stream."""
    async with open_service() as service, visiting(chromium, service.base) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        call = await ask(page, service)
        await call.tell(ReasoningDelta(text="\n\n".join(HARM)))
        for text in HARM:
            await call.say(*(text[at : at + 5] for at in range(0, len(text), 5)), "\n\n")
        await call.tell(RefusalDelta(text=HARM[0]), ToolCallDelta(index=0, id="1", name=HARM[1], arguments=HARM[1]))
        await call.end()
        await until(view(page, 1).locator(".status"), "complete")
        shown = view(page, 1).locator(".text")
        assert await shown.locator("script, img, svg, iframe, style, meta, form, base, object, input").count() == 0
        for link in await shown.locator("a").all():
            address = await link.get_attribute("href") or ""
            assert address.startswith("https://evil.example"), address
            assert await link.get_attribute("rel") == "noopener noreferrer nofollow"
        attributes = await shown.evaluate(ATTRIBUTES)
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src", "srcdoc")]
        assert "<script>window.harmed = 1</script>" in await shown.inner_text()
        assert await page.evaluate("() => window.harmed") is None
        assert all(url.startswith((service.base, service.base.replace("http", "ws"))) for url in asked), asked


@pytest.mark.parametrize("name", LONG)
async def test_no_text_is_slow(chromium: "Browser", name: str) -> None:
    """A text that is made to be slow is shown all the same, with all of its characters that matter."""
    async with open_service() as service, visiting(chromium, service.base) as page:
        shown = await page.evaluate(RENDER, [LONG[name]])
        assert shown["ms"] < 3000


async def test_json_is_shown_while_it_is_written(chromium: "Browser") -> None:
    """With a schema the request asks for the value so far; the view shows it, and at the end the validated one."""
    async with open_service() as service, visiting(chromium, service.base) as page:
        await page.get_by_label("JSON by a schema").check()
        await page.fill("#code", json.dumps({"type": "object", "properties": {"name": {"type": "string"}}}))
        call = await ask(page, service, "a town")
        assert call.complete.request.schema == {"type": "object", "properties": {"name": {"type": "string"}}}
        await call.say('{"name": "Nap')
        await until(view(page, 1).locator(".text figcaption"), "JSON so far")
        assert json.loads(await view(page, 1).locator(".text pre").inner_text()) == {"name": "Nap"}
        await call.say('oli"}')
        await call.end(result={"name": "Napoli"})
        await until(view(page, 1).locator(".text figcaption"), "valid by the schema")
        assert json.loads(await view(page, 1).locator(".text pre").inner_text()) == {"name": "Napoli"}


async def test_a_schema_that_is_none_is_said_beside_it(chromium: "Browser") -> None:
    """JSON that can't be read is not sent; a schema that the service refuses is an error in its view."""
    async with open_service() as service, visiting(chromium, service.base) as page:
        await page.get_by_label("JSON by a schema").check()
        await page.fill("#code", "{")
        await page.get_by_role("button", name="Send").click()
        await until(page.locator("#code-problem"), "This is no JSON")
        assert await page.evaluate("() => document.activeElement.id") == "code"
        assert await page.locator(".view").count() == 0
        await page.fill("#code", '{"type": "nonsense"}')
        assert await page.locator("#code-problem").inner_text() == ""
        await page.get_by_role("button", name="Send").click()
        await until(view(page, 1).locator(".problem"), "invalid_schema")
        assert await view(page, 1).locator(".status").inner_text() == "not sent"


async def test_tools_are_called_and_answered(chromium: "Browser") -> None:
    """The calls are shown as they come; their results go back with the conversation, as a new request."""
    async with open_service() as service, visiting(chromium, service.base) as page:
        await page.get_by_label("Tools").check()
        call = await ask(page, service, "weather?")
        assert [tool.name for tool in call.complete.request.tools] == ["weather"]
        await call.say("Let me look. ")
        await call.end(tool_calls=(ToolCall(id="c1", name="weather", arguments='{"city":"Lisbon"}'),))
        await until(view(page, 1).locator("figcaption"), "Calls weather")
        assert json.loads(await view(page, 1).locator(".text pre").inner_text()) == {"city": "Lisbon"}
        await page.get_by_label("Result of weather").fill("sunny")
        await page.get_by_role("button", name="Send the result").press("Enter")
        answer = await service.call()
        messages = answer.complete.request.messages
        assert [message.role for message in messages] == ["user", "assistant", "tool"]
        assert (messages[2].content, messages[2].tool_call_id) == ("sunny", "c1")
        await answer.say("It is sunny.")
        await answer.end()
        await until(page.locator(".request").first.locator(".text"), "It is sunny.")


async def test_reasoning_is_shown_apart(chromium: "Browser") -> None:
    """A request with an effort goes out as an OpenAI response in the background, and is followed as any other."""
    async with open_service() as service, visiting(chromium, service.base) as page:
        await page.get_by_label("Reasoning").check()
        await page.select_option("#effort", "high")
        call = await ask(page, service, "think")
        assert call.complete.request.extra["reasoning_effort"] == "high"
        await call.tell(ReasoningDelta(text="Let me **see**"))
        await until(view(page, 1).locator("summary"), "Thinking")
        await call.tell(Delta(text="It is 5."))
        await until(view(page, 1).locator("summary"), "Thought")
        assert await view(page, 1).locator(".thought").inner_text() == "Let me see"
        assert await view(page, 1).locator(".markdown").inner_text() == "It is 5."
        assert await page.locator(".timeline rect[data-kind=reasoning]").count() == 1
        assert (await view(page, 1).locator(".id").inner_text()).startswith("req_")
        await call.end()
