"""The actors in a plain asyncio program, with no server: a local model, or OpenAI's where OPENAI_API_KEY is set."""

import asyncio
import os

from actors import (
    CacheActor,
    ChatMessage,
    ChatRequest,
    GatewayConfig,
    Ref,
    RequestRouter,
    Submit,
    System,
    build_gateway,
)
from protocol.events import Delta, Entry


async def answer(router: Ref[Submit], question: str) -> None:
    """Follow an answer to its end, and print it with where it came from."""
    request = ChatRequest(model="default", messages=(ChatMessage(role="user", content=question),), max_tokens=64)
    handle = (await router.ask(Submit(request=request), timeout=10)).handle
    text = ""
    async for item in handle.follow():
        if isinstance(item, Entry) and isinstance(item.event, Delta):
            text += item.event.text
    print(f"{handle.source}, {handle.state().assistant_status}: {text}")


async def main() -> None:
    """Ask the same three times: the model is called once."""
    config = GatewayConfig(
        openai_api_key=os.getenv("OPENAI_API_KEY", ""), openai_base_url=os.getenv("OPENAI_BASE_URL", "")
    )
    async with System() as system:
        gateway = system.spawn(build_gateway(config), name="gateway")
        cache = system.spawn(CacheActor, name="cache")
        router = system.spawn(lambda: RequestRouter(gateway=gateway, cache=cache), name="router")
        await asyncio.gather(answer(router, "Name three fruits."), answer(router, "Name three fruits."))  # joined
        await answer(router, "Name three fruits.")  # replayed


asyncio.run(main())
