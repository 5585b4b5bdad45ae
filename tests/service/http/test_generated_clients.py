"""Clients that public generators make of ``/openapi.json``: they compile, and their calls work.

The generators are installed once into pytest's cache, apart from this environment, whose versions they do not share.
"""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import SecretStr

from actors.testing import ScriptedUpstream, say

Start = Callable[..., Awaitable[Any]]

PYTHON_GENERATOR: Final = "openapi-python-client==0.29.1"
NPM_PACKAGES: Final = ("openapi-typescript@7.13.0", "openapi-fetch@0.17.0", "typescript@5.9.3")
KEY: Final = "a-key-of-the-tests"
TEXT: Final = "The sea is salty."
CONFIG: Final = "project_name_override: tidegate-client\npackage_name_override: tidegate_client\npost_hooks: []\n"
PYTHON_PROGRAM: Final = """
import json
import sys

from tidegate_client import AuthenticatedClient
from tidegate_client.api.channels import publish
from tidegate_client.api.models import list_models
from tidegate_client.api.open_ai import create_chat_completion
from tidegate_client.api.requests import follow_request, get_request, submit_request
from tidegate_client.models import (
    Accepted,
    ChatBody,
    ChatCompletion,
    ChatMessage,
    ChatMessageRole,
    OpenAIModelList,
    ProblemBody,
    PublishBody,
    RequestOptions,
    RequestState,
    SubmitBody,
)

client = AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2])
message = ChatMessage(role=ChatMessageRole.USER, content="Why is the sea salty?")
body = SubmitBody(messages=[message], options=RequestOptions(max_tokens=20))
accepted = submit_request.sync(client=client, body=body, idempotency_key="once")
assert isinstance(accepted, Accepted)
events = follow_request.sync_detailed(accepted.request_id, client=client)
assert b"event: complete" in events.content
state = get_request.sync(accepted.request_id, client=client)
assert isinstance(state, RequestState)
refused = publish.sync("room:7", client=client, body=PublishBody(event=""))
assert isinstance(refused, ProblemBody)
models = list_models.sync(client=client)
assert isinstance(models, OpenAIModelList)
chat = ChatBody.from_dict({"model": "default", "messages": [{"role": "user", "content": "hi"}]})
completion = create_chat_completion.sync(client=client, body=chat)
assert isinstance(completion, ChatCompletion)
found = {"status": state.assistant_status.value, "code": refused.code, "text": completion.choices[0].message.content}
print(json.dumps(found))
"""
TYPESCRIPT_PROGRAM: Final = """
import createClient from "openapi-fetch";
import type { components, paths } from "./schema";

const client = createClient<paths>({ baseUrl: BASE_URL, headers: { Authorization: "Bearer KEY" } });
const body: components["schemas"]["SubmitBody"] = {
  messages: [{ role: "user", content: "Why is the sea salty?" }],
  options: { maxTokens: 20 },
};
const submitted = await client.POST("/api/requests", { body, params: { header: { "Idempotency-Key": "once" } } });
if (!submitted.data) throw new Error(submitted.error.remedy);
const id: string = submitted.data.requestId;
const events = await client.GET("/api/requests/{id}/events", { params: { path: { id } }, parseAs: "text" });
if (!String(events.data).includes("event: complete")) throw new Error("the events have no end");
const state = await client.GET("/api/requests/{id}", { params: { path: { id } } });
const refused = await client.POST("/api/channels/{name}/publish", {
  params: { path: { name: "room:7" } },
  body: { event: "" },
});
// @ts-expect-error: there is no such address
await client.GET("/api/nowhere");
const chat = await client.POST("/v1/chat/completions", {
  body: { model: "default", messages: [{ role: "user", content: "hi" }] },
});
if (typeof chat.data !== "object") throw new Error("no completion");
const text = chat.data.choices[0].message.content;
console.log(JSON.stringify({ status: state.data?.assistantStatus, code: refused.error?.code, text }));
"""


async def run(*command: str, cwd: Path, path: str = "") -> str:
    """Return what a command prints.

    Raises:
        AssertionError: it failed; with its output.
    """
    variables = {**os.environ, "PYTHONPATH": path} if path else dict(os.environ)
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=variables, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-3000:]
    return output.decode()


async def installed(place: Path, *command: str) -> Path:
    """Return the folder of a generator; install it there where it is missing, or skip the test with the reason."""
    stamp = place / ".installed"
    if not stamp.exists():
        try:
            await run(*command, cwd=place)
        except (AssertionError, OSError) as error:
            pytest.skip(f"{command[-1]} can't be installed: {' '.join(str(error).split())[-300:]}")
        stamp.touch()
    return place


@pytest.fixture
async def address(start: Start, upstream: ScriptedUpstream) -> str:
    """The address of a service with a key, whose model says ``TEXT``."""
    upstream.default = say(TEXT)
    return str((await start(api_keys=(SecretStr(KEY),))).address)


@pytest.mark.timeout(300)
async def test_a_client_in_python(address: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """openapi-python-client makes every operation of it, without a warning; the types hold, and the calls work."""
    place = pytestconfig.cache.mkdir(PYTHON_GENERATOR.replace("==", "-"))
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(place))
    path = str(await installed(place, *pip, PYTHON_GENERATOR))
    (tmp_path / "config.yaml").write_text(CONFIG)
    generator = (sys.executable, "-m", "openapi_python_client", "generate", "--url", f"{address}/openapi.json")
    said = await run(*generator, "--config", "config.yaml", "--output-path", "made", cwd=tmp_path, path=path)
    assert "WARNING" not in said, said
    made = tmp_path / "made"
    (made / "program.py").write_text(PYTHON_PROGRAM)
    await run(sys.executable, "-m", "mypy", "--no-error-summary", "program.py", "tidegate_client", cwd=made, path=path)
    printed = await run(sys.executable, "program.py", address, KEY, cwd=made, path=path)
    assert json.loads(printed) == {"status": "completed", "code": "invalid_request", "text": TEXT}


@pytest.mark.timeout(300)
async def test_a_client_in_typescript(address: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """openapi-typescript makes types that hold in a strict program, whose calls with openapi-fetch work."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    place = pytestconfig.cache.mkdir("openapi-typescript-7.13.0")
    npm = ("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", "--prefix", str(place))
    modules = await installed(place, *npm, *NPM_PACKAGES) / "node_modules"
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "program.ts").write_text(
        TYPESCRIPT_PROGRAM.replace("BASE_URL", json.dumps(address)).replace("KEY", KEY)
    )
    tools = modules / ".bin"
    generator = (str(tools / "openapi-typescript"), "--default-non-nullable=false", f"{address}/openapi.json")
    await run(*generator, "--output", "schema.d.ts", cwd=tmp_path)
    strict = ("--strict", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler")
    await run(str(tools / "tsc"), *strict, "program.ts", cwd=tmp_path)
    printed = await run("node", "program.js", cwd=tmp_path)
    assert json.loads(printed) == {"status": "completed", "code": "invalid_request", "text": TEXT}
