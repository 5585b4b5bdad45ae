"""``tidegate check`` in a process of its own."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

HIDDEN = "sk-hidden-hidden-hidden"
TOML = """
default = "fast"
[providers.groq]
kind = "openai"
api_key_env = "GROQ_API_KEY"
[routes.fast]
targets = ["groq/llama", { model = "local/smollm2" }]
[embeddings.docs]
targets = ["openai/text-embedding-3-small"]
[keys.web]
env = "WEB_KEY"
"""


async def check(folder: Path, **settings: str) -> tuple[int, list[str]]:
    """Run the command in a folder; returns its exit code and its lines. It may open no connection."""
    root = Path(__file__).parents[3]
    guard = "import socket; socket.socket.connect = None; from service.cli.main import main; main()"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", guard, "check"),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(root), "TERM": "dumb", **settings},
    )
    out, _ = await process.communicate()
    return await process.wait(), out.decode().splitlines()


@pytest.mark.parametrize("wrong", [False, True])
async def test_check(tmp_path: Path, *, wrong: bool) -> None:
    """What would be served, and 0; or each fault, and 1. No secret, no process, no network call."""
    env, toml = tmp_path / ".env", tmp_path / "tidegate.toml"
    secrets = f"GROQ_API_KEY={HIDDEN}\nOPENAI_API_KEY={HIDDEN}\nWEB_KEY={HIDDEN}\nTYPO=1\n"
    await asyncio.to_thread(env.write_text, secrets, encoding="utf-8")
    await asyncio.to_thread(toml.write_text, TOML.replace("groq/", "grok/") if wrong else TOML, encoding="utf-8")
    code, lines = await check(tmp_path, **({"PORT": "http"} if wrong else {}))
    assert HIDDEN not in str(lines)
    assert lines[:2] == [f"files: {env}, {toml}", "ignored: .env:4: TYPO: there is no such setting"]
    if wrong:
        assert (code, len(lines), lines[-1]) == (1, 5, "2 faults: the service does not start")
        assert lines[2] == "fault: PORT: should be a whole number, at least 0, at most 65535"
        assert lines[3].startswith(
            "fault: tidegate.toml:7: routes.fast.targets[0]: 'grok/llama' is no `provider/model`"
        )
        assert lines[3].endswith("did you mean 'groq'?")
    else:
        assert code == 0
        assert lines[2:] == [
            "address: 127.0.0.1:3000 (development)",
            "keys: 0 of API_KEYS, 1 of tidegate.toml",
            "default: fast",
            "providers: groq, local, openai",
            "provider groq: https://api.openai.com/v1",
            "provider local: on this machine",
            "provider openai: https://api.openai.com/v1",
            "route fast: groq/llama, local/smollm2",
            "embeddings docs: openai/text-embedding-3-small",
        ]


async def test_an_address_without_a_path_is_a_warning(tmp_path: Path) -> None:
    """Most services of OpenAI's dialect want ``/v1``. The address is shown without its query."""
    toml = """
    [providers.bare]
    kind = "openai"
    base_url = "http://127.0.0.1:9/?key=sk-hidden-hidden-hidden"
    [providers.claude]
    kind = "anthropic"
    base_url = "http://127.0.0.1:9"
    """
    await asyncio.to_thread((tmp_path / "tidegate.toml").write_text, toml, encoding="utf-8")
    code, lines = await check(tmp_path, OPENAI_BASE_URL="http://127.0.0.1:8")
    assert code == 0
    assert HIDDEN not in str(lines)
    assert "provider bare: http://127.0.0.1:9" in lines
    assert "provider openai: http://127.0.0.1:8" in lines
    end = "has no path; most services of OpenAI's dialect want"
    assert [line for line in lines if line.startswith("warning")] == [
        f"warning: tidegate.toml: providers.bare.base_url: http://127.0.0.1:9 {end} http://127.0.0.1:9/v1",
        f"warning: OPENAI_BASE_URL: http://127.0.0.1:8 {end} http://127.0.0.1:8/v1",
    ]
