"""``POST /v1/chat/completions``: OpenAI's dialect."""

import time

from aiohttp import web

from protocol.events import Completed
from protocol.openai.answer import ChunkEncoder, completion_body
from protocol.openai.chat import ChatBody, ChatCall, parse_chat
from service.context import container_of
from service.http.bodies import read_json
from service.http.dialects import respond_json, respond_sse, submit_completion
from service.http.openai_answers import ChatCompletion
from service.http.operations import (
    ANSWERS,
    CHAT_HEADERS,
    EVENTS,
    INFERENCE,
    INFERS,
    Answer,
    Body,
    Operation,
    add_operations,
)
from service.http.operations import OPENAI as TAG
from service.http.validation import OPENAI, check_request


def add_routes(app: web.Application) -> None:
    """Add the route."""
    add_operations(app, chat_completions)


@Operation(
    "POST",
    "/v1/chat/completions",
    name="createChatCompletion",
    tag=TAG,
    summary="Create a chat completion, whole or streamed.",
    text="With `stream` each chunk is a server-sent event, and the last one is `data: [DONE]`. The answer's id is "
    "`chatcmpl-` and the request's id, with which it can be followed at `/api/requests/{id}/events` too.",
    parameters=CHAT_HEADERS,
    body=Body(
        ChatBody, {"model": "default", "messages": [{"role": "user", "content": "Why is the sea salty?"}]}, "Chat"
    ),
    answers=(
        Answer(200, "The completion.", ChatCompletion, media=EVENTS, headers=(*INFERENCE, "Idempotent-Replayed")),
    ),
    errors=(*INFERS, *ANSWERS),
)
async def chat_completions(request: web.Request) -> web.StreamResponse:
    """Respond with a chat completion, as JSON or as a stream."""
    chat = await read_json(request, container_of(request).settings.max_body_bytes, _parse)
    submission = await submit_completion(request, chat.request, surface="openai")
    request_id, model, created = submission.handle.request_id, chat.request.model, int(time.time())
    if chat.stream:
        return await respond_sse(submission, ChunkEncoder(request_id, created, model, chat.include_usage))

    def body(completed: Completed) -> bytes:
        return completion_body(request_id, created, model, completed)

    return await respond_json(submission, body)


def _parse(body: bytes) -> ChatCall:
    chat = parse_chat(body)
    check_request(chat.request, OPENAI)
    return chat
