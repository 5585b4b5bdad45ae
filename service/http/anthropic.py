"""``POST /v1/messages`` and ``/v1/messages/count_tokens``: Anthropic's dialect."""

from typing import Final

from aiohttp import web

from protocol.anthropic.answer import PING_EVENT, MessagesEventEncoder, count_body, message_body
from protocol.anthropic.messages import parse_count, parse_messages
from protocol.events import Completed
from protocol.gateway import ResolveModel
from protocol.tokens import estimate_tokens
from service.auth.permissions import model_for
from service.context import call_of, container_of
from service.http.bodies import read_json
from service.http.dialects import respond_json, respond_sse, submit_completion
from service.http.json_response import JsonResponse
from service.http.validation import ANTHROPIC, check_request

RESOLVE_TIMEOUT: Final = 5.0  # seconds


def add_routes(app: web.Application) -> None:
    """Add the two routes."""
    app.router.add_post("/v1/messages", messages)
    app.router.add_post("/v1/messages/count_tokens", count_tokens)


async def messages(request: web.Request) -> web.StreamResponse:
    """Respond with a message, as JSON or as a stream."""
    betas = ",".join(request.headers.getall("anthropic-beta", ()))
    message = parse_messages(await _read(request), betas)
    check_request(message.request, ANTHROPIC)
    submission = await submit_completion(request, message.request, surface="anthropic")
    request_id, model = submission.handle.request_id, message.request.model
    submission.headers["request-id"] = submission.call.request_id
    if message.stream:
        encoder = MessagesEventEncoder(request_id, model, submission.call.request_id, lambda: submission.handle.usage)
        return await respond_sse(submission, encoder, ping=PING_EVENT)

    def body(completed: Completed) -> bytes:
        return message_body(request_id, model, completed)

    return await respond_json(submission, body)


async def count_tokens(request: web.Request) -> JsonResponse:
    """Return an estimate; the provider is not asked."""
    chat = parse_count(await _read(request))
    check_request(chat, ANTHROPIC)
    model = model_for(call_of(request).principal, chat.model)
    await container_of(request).gateway.ask(ResolveModel(model), timeout=RESOLVE_TIMEOUT)
    headers = {"request-id": call_of(request).request_id}
    return JsonResponse(count_body(estimate_tokens(chat)), headers=headers)


async def _read(request: web.Request) -> bytes:
    return await read_json(request, container_of(request).settings.max_body_bytes)
