"""``POST /v1/chat/completions``: OpenAI's dialect over the same requests and logs as everything else."""

import time

from aiohttp import web

from protocol.events import Completed
from protocol.openai.chat import ChunkEncoder, completion_body, parse_chat
from service.context import container_of
from service.http.bodies import read_json
from service.http.dialects import ask, stream, whole
from service.http.validation import OPENAI, check_request


def add_routes(app: web.Application) -> None:
    """Offer the address."""
    app.router.add_post("/v1/chat/completions", chat_completions)


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """Complete a chat, whole or as a stream."""
    chat = parse_chat(await read_json(request, container_of(request).settings.max_body_bytes))
    check_request(chat.request, OPENAI)
    asked = await ask(request, chat.request)
    request_id, model, created = asked.handle.request_id, chat.request.model, int(time.time())
    if chat.stream:
        return await stream(asked, ChunkEncoder(request_id, created, model, chat.include_usage))

    def body(completed: Completed) -> bytes:
        structured = chat.request.schema is not None
        return completion_body(request_id, created, model, completed, structured=structured)

    return await whole(asked, body)
