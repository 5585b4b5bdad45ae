"""The whole service in front of either vendor's upstream, for the clients of other packages."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from actors.testing import Call, End, Reply, Say, ScriptedUpstream
from service.config.settings import load_settings
from service.container import open_container
from service.server.server import listening

KEY: Final = "a-key-of-the-clients"
MODELS: Final = {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5"}
DIALECTS: Final = tuple(MODELS)
LOOKING: Final = Reply(
    steps=(
        Say("let me see"),
        Call(index=0, id="c1", name="look", arguments='{"at"'),
        Call(index=0, arguments=": 1}"),
        Call(index=1, id="c2", name="look", arguments='{"at": 2}'),
        End(finish_reason="tool_calls"),
    )
)


def calls(name: str, arguments: str) -> Reply:
    """Return an answer that only has a tool call."""
    return Reply(steps=(Call(index=0, id="c1", name=name, arguments=arguments), End(finish_reason="tool_calls")))


@asynccontextmanager
async def serving(upstream: ScriptedUpstream, dialect: str) -> AsyncIterator[str]:
    """Serve with the upstream as the only provider, in its dialect, with a key; yields the address."""
    url = {"openai": upstream.openai_url, "anthropic": upstream.anthropic_url}[dialect]
    keys = {f"{dialect}_api_key": "upstream-key", f"{dialect}_base_url": url}
    settings = load_settings(None, port=0, api_keys=KEY, default_llm_model=MODELS[dialect], **keys)
    async with open_container(settings) as container, listening(container) as (_runner, address):
        container.lifecycle.serve()
        yield address
