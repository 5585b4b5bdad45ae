"""``POST /v1/messages`` and ``/v1/messages/count_tokens``: Anthropic's dialect."""

from functools import partial
from typing import Final

from aiohttp import web

from protocol.anthropic.answer import PING_EVENT, MessagesEventEncoder, count_body, message_body
from protocol.anthropic.messages import MAX_BETAS, CountBody, MessageBody, MessageCall, parse_count, parse_messages
from protocol.events import Completed
from protocol.gateway import ResolveModel
from protocol.tokens import estimate_tokens
from service.auth.permissions import model_for
from service.context import call_of, container_of
from service.http.anthropic_answers import MessageAnswer, TokenCount
from service.http.bodies import read_json
from service.http.dialects import respond_json, respond_sse, submit_completion
from service.http.json_response import JsonResponse
from service.http.operations import (
    ANSWERS,
    ASKS,
    CHAT_HEADERS,
    EVENTS,
    INFERENCE,
    INFERS,
    Answer,
    Body,
    Operation,
    Parameter,
    add_operations,
)
from service.http.operations import ANTHROPIC as TAG
from service.http.validation import ANTHROPIC, check_request

RESOLVE_TIMEOUT: Final = 5.0  # seconds
VERSION: Final = Parameter(name="anthropic-version", place="header", text="Accepted, and not looked at.")
BETA: Final = Parameter(
    name="anthropic-beta",
    place="header",
    text=f"Names of the vendor's features, at most {MAX_BETAS}, with commas between them.",
    schema={"type": "string", "pattern": "^[ A-Za-z0-9._,-]*$"},
)


def add_routes(app: web.Application) -> None:
    """Add the two routes."""
    add_operations(app, messages, count_tokens)


@Operation(
    "POST",
    "/v1/messages",
    name="createMessage",
    tag=TAG,
    summary="Create a message, whole or streamed.",
    text="With `stream` each event is a server-sent event with its name. The id is `msg_` and the request's id.",
    parameters=(*CHAT_HEADERS, VERSION, BETA),
    body=Body(
        MessageBody,
        {"model": "default", "max_tokens": 200, "messages": [{"role": "user", "content": "Why is the sea salty?"}]},
        "Message",
    ),
    answers=(
        Answer(
            200,
            "The message.",
            MessageAnswer,
            media=EVENTS,
            headers=(*INFERENCE, "request-id", "Idempotent-Replayed"),
        ),
    ),
    errors=(*INFERS, *ANSWERS),
)
async def messages(request: web.Request) -> web.StreamResponse:
    """Respond with a message, as JSON or as a stream."""
    betas = ",".join(request.headers.getall("anthropic-beta", ()))
    message = await read_json(request, container_of(request).settings.max_body_bytes, partial(_parse, betas))
    submission = await submit_completion(request, message.request, surface="anthropic")
    request_id, model = submission.handle.request_id, message.request.model
    submission.headers["request-id"] = submission.call.request_id
    if message.stream:
        encoder = MessagesEventEncoder(request_id, model, submission.call.request_id, lambda: submission.handle.usage)
        return await respond_sse(submission, encoder, ping=PING_EVENT)

    def body(completed: Completed) -> bytes:
        return message_body(request_id, model, completed)

    return await respond_json(submission, body)


@Operation(
    "POST",
    "/v1/messages/count_tokens",
    name="countTokens",
    tag=TAG,
    summary="Estimate how many tokens a message has.",
    text="The provider is not asked.",
    parameters=(VERSION,),
    body=Body(
        CountBody,
        {"model": "default", "messages": [{"role": "user", "content": "Why is the sea salty?"}]},
        "Message",
    ),
    answers=(Answer(200, "The estimate.", TokenCount, headers=("request-id",)),),
    errors=(*ASKS, "invalid_schema", "model_not_found", "model_not_allowed"),
)
async def count_tokens(request: web.Request) -> JsonResponse:
    """Return an estimate; the provider is not asked."""
    chosen, tokens = await read_json(request, container_of(request).settings.max_body_bytes, _counted)
    model = model_for(call_of(request).principal, chosen)
    await container_of(request).gateway.ask(ResolveModel(model), timeout=RESOLVE_TIMEOUT)
    headers = {"request-id": call_of(request).request_id}
    return JsonResponse(count_body(tokens), headers=headers)


def _parse(betas: str, body: bytes) -> MessageCall:
    message = parse_messages(body, betas)
    check_request(message.request, ANTHROPIC)
    return message


def _counted(body: bytes) -> tuple[str, int]:
    """Return the model and the estimate of its tokens."""
    chat = parse_count(body)
    check_request(chat, ANTHROPIC)
    return chat.model, estimate_tokens(chat)
