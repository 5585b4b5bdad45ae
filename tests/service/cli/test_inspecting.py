"""``tidegate models``, ``status``, ``usage`` and ``cancel`` in real processes, against a real service."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.testing import Reply, Say, ScriptedUpstream, Wait
from tests.service.cli.command import Service, Terminal, serving, tidegate


@pytest.fixture
async def service(root: Path, upstream: ScriptedUpstream) -> AsyncIterator[Service]:
    """A service that runs."""
    async with serving(root, upstream) as service:
        yield service


async def test_models_and_status(root: Path, upstream: ScriptedUpstream, service: Service) -> None:
    """Tables for people, JSON for programs."""
    code, out, notes = await tidegate(root, "models", "--url", service.address)
    assert (code, notes, out.splitlines()[0].split()) == (0, "", ["MODEL", "PROVIDER"])
    assert "default" in out
    code, out, _ = await tidegate(root, "models", "--json", "--url", service.address)
    assert "default" in {model["id"] for model in json.loads(out)["data"]}
    code, out, notes = await tidegate(root, "status", "--url", service.address + "/")
    assert (code, notes) == (0, "")
    assert out.startswith(f"{service.address} is ready (healthy); key: not needed\n")
    assert re.search(r"^provider +ok\b", out, re.MULTILINE)
    _, out, _ = await tidegate(root, "status", "--json", "--url", service.address)
    status = json.loads(out)
    assert (status["ready"], status["keyAccepted"], status["health"]["status"]) == (True, True, "healthy")


async def test_usage_and_a_refused_key(root: Path, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """The account's spending with its limits; ``status`` says whether the key is accepted."""
    file = tmp_path / "tidegate.toml"
    made = await tidegate(
        root, "key", "create", "web", "--budget", "1_000_000tokens/day", "--save", "--file", str(file)
    )
    key = re.findall(r"tg_[\w-]{43}", made[2])[0]
    async with serving(root, upstream, ROUTES_FILE=str(file)) as service:
        given = {"TIDEGATE_URL": service.address, "TIDEGATE_API_KEY": key}
        await tidegate(root, "ask", "hi", **given)
        code, out, _ = await tidegate(root, "usage", **given)
        assert (code, out.splitlines()[0]) == (0, "account web")
        assert re.search(r"^day +[\d_]+ +1_000_000 ", out, re.MULTILINE)
        _, out, _ = await tidegate(root, "usage", "--json", **given)
        assert json.loads(out)["windows"][0]["maxTokens"] == 1_000_000
        assert "key: accepted, account web" in (await tidegate(root, "status", **given))[1]
        code, out, notes = await tidegate(root, "status", TIDEGATE_URL=service.address)
        assert (code, "key: none was sent" in out, "No key was sent" in notes) == (1, True, True)
        assert "TIDEGATE_API_KEY" in notes
        code, out, notes = await tidegate(root, "status", TIDEGATE_URL=service.address, TIDEGATE_API_KEY="wrong")
        assert (code, "key: refused" in out, "This key is not known" in notes) == (1, True, True)
        code, out, notes = await tidegate(root, "status", TIDEGATE_URL=service.address, TIDEGATE_API_KEY="no key")
        assert (code, "no spaces" in notes) == (2, True)


async def test_a_missing_scope_is_named(root: Path, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """Also where the refusal has the form of a vendor."""
    file = tmp_path / "tidegate.toml"
    file.write_text('[keys.chat]\nenv = "CHAT_KEY"\nscopes = ["channels"]\n', encoding="utf-8")
    key = "the-key-of-the-tests"
    async with serving(root, upstream, ROUTES_FILE=str(file), CHAT_KEY=key) as service:
        code, _, notes = await tidegate(root, "models", TIDEGATE_URL=service.address, TIDEGATE_API_KEY=key)
    assert (code, "This needs the scope `inference` (forbidden)" in notes) == (1, True)


async def test_cancel(root: Path, upstream: ScriptedUpstream, service: Service) -> None:
    """A running request is cancelled for its readers; one that is not there is an error."""
    upstream.script(Reply(steps=(Say("one "), Wait(asyncio.Event()))))
    terminal = await Terminal.run(root, "ask", "count", "--url", service.address)
    await terminal.until("one ")
    named = re.findall(r"request: (req_\w+)", terminal.seen)[0]
    code, out, notes = await tidegate(root, "cancel", named, "--url", service.address)
    assert (code, out, notes) == (0, f"{named} cancelled\n", "")
    assert await terminal.end() == 1
    code, out, notes = await tidegate(root, "cancel", "req_1", "--json", "--url", service.address)
    assert (code, json.loads(out)["error"]["code"]) == (1, "request_not_found")
