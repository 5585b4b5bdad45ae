"""``POST /v1/embeddings``: OpenAI's dialect."""

import logging
import time
from functools import partial
from typing import Any, Final

from aiohttp import web

from actors.embeddings.config import EmbeddingBounds
from actors.embeddings.embedding import estimate
from actors.requests.outcome import LOGGER, OUTSIDE, level_of, tokens_of
from protocol.embeddings import Embed, Embedded
from protocol.errors import DeadlineExceeded, FieldError, InvalidRequest, TidegateError
from protocol.llm import Usage
from protocol.log_fields import log_fields
from protocol.openai.embeddings import EmbeddingsBody, embeddings_body, parse_embeddings
from protocol.pass_fields import passed_fields, warning_of
from service.auth.permissions import check_model
from service.context import CallContext, call_of, container_of
from service.http.bodies import read_json
from service.http.dialects import WARNING
from service.http.json_response import JsonResponse
from service.http.openai_answers import EmbeddingList
from service.http.operations import ANSWERS, ASKS, OPENAI, Answer, Body, Operation, add_operations
from service.http.operations import DEDUPE as DEDUPE_HEADER
from service.http.submitting import GRACE, take
from service.middleware.limits import EMBEDDINGS

MAX_VALUES: Final = 320_000  # JSON values of one body: texts may come as rows of tokens
TOTAL: Final = EmbeddingBounds().total  # seconds
ASK_TIMEOUT: Final = TOTAL + 1.0  # seconds: the actor's own failure comes first
LEASE: Final = ASK_TIMEOUT + GRACE
PATH: Final = "/v1/embeddings"
DEDUPE: Final = "x-tidegate-dedupe"
CHOICES: Final = {"on": True, "off": False}

_log = logging.getLogger(LOGGER)


def add_routes(app: web.Application) -> None:
    """Add the route."""
    add_operations(app, embeddings)


@Operation(
    "POST",
    PATH,
    name="createEmbeddings",
    tag=OPENAI,
    summary="Embed texts.",
    text="Identical texts share one vector, except with `x-tidegate-dedupe: off`.",
    parameters=(DEDUPE_HEADER,),
    body=Body(EmbeddingsBody, {"model": "default", "input": ["The sea is salty.", "The moon is far."]}, "Embedding"),
    answers=(
        Answer(200, "The vectors.", EmbeddingList, headers=("x-tidegate-source", "x-tidegate-cost-usd", WARNING)),
    ),
    errors=(*ASKS, *ANSWERS, "model_not_found", "model_not_allowed", "overloaded"),
)
async def embeddings(request: web.Request) -> JsonResponse:
    """Embed texts. Identical texts share one vector, except with ``x-tidegate-dedupe: off``.

    A client that disconnects cancels the texts that no other client waits for.
    """
    call, container = call_of(request), container_of(request)
    parsed = await read_json(request, container.settings.max_body_bytes, parse_embeddings, values=MAX_VALUES)
    check_model(call.principal, parsed.model)
    call.needs = partial(check_model, model=parsed.model)
    extra, left_out = passed_fields(parsed.extra, container.passing.lists_for_embeddings(call.principal, parsed.model))
    message = Embed(
        model=parsed.model,
        inputs=parsed.inputs,
        dimensions=parsed.dimensions,
        tenant=call.tenant,
        account=call.principal.account,
        dedupe=_dedupe(request),
        extra=extra,
    )
    hold = None
    if call.principal.plan is not None:
        tokens = partial(estimate, message.inputs)
        hold = await take(container, call.principal, EMBEDDINGS, tokens, LEASE, path=PATH, call=call)
    code = "cancelled"
    embedded: Embedded | None = None
    try:
        embedded = await container.embeddings.ask(message, timeout=ASK_TIMEOUT)
    except DeadlineExceeded as error:
        code = error.code
        raise error.within(TOTAL) from error
    except TidegateError as error:
        code = error.code
        raise
    finally:
        if hold is not None:
            hold.count(0 if embedded is None else embedded.tokens)
            hold.release()
        _log_end(call, message, embedded, code)
    headers = _headers(embedded)
    if left_out:
        headers[WARNING] = warning_of(left_out)
    return JsonResponse(embeddings_body(embedded, parsed.model, parsed.encoding), headers=headers)


def _dedupe(request: web.Request) -> bool:
    value = request.headers.get(DEDUPE, "on").strip().lower()
    if value not in CHOICES:
        reason = "must be `on` or `off`"
        raise InvalidRequest(f"`{DEDUPE}` {reason}, got {value[:40]!r}", errors=(FieldError(DEDUPE, reason),))
    return CHOICES[value]


def _log_end(call: CallContext, message: Embed, embedded: Embedded | None, code: str) -> None:
    """Write ``request_ended``, as for every other request; ``code`` counts where there are no vectors."""
    level = logging.INFO if embedded is not None or code == "cancelled" else level_of(code)
    if not _log.isEnabledFor(level):
        return
    failed = "cancelled" if code == "cancelled" else "failed"
    fields: dict[str, Any] = {
        "status": failed if embedded is None else "completed",
        "ms": round((time.perf_counter() - call.accepted) * 1000, 2),
        "request_id": call.request_id,
        "trace_id": call.trace_id,
        "account": message.tenant if message.account is None else message.account.name,
        "surface": "embeddings",
        "model": message.model,
        "inputs": len(message.inputs),
    }
    if embedded is None:
        fields["code"] = code
    else:
        fields["source"] = _source(embedded)
        fields["tokens"] = tokens_of(Usage(input_tokens=embedded.tokens))
        fields["cost"] = None if embedded.usd is None else f"{embedded.usd:f}"
    log_fields(_log, level, "request_ended", fields, OUTSIDE)
    call.outcome_logged = True


def _headers(embedded: Embedded) -> dict[str, str]:
    headers = {"x-tidegate-source": _source(embedded)}
    if embedded.usd is not None:
        headers["x-tidegate-cost-usd"] = f"{embedded.usd:f}"
    return headers


def _source(embedded: Embedded) -> str:
    """Return where the vectors are from: the most expensive of their sources."""
    if embedded.asked:
        return "upstream"
    return "joined" if embedded.joined else "cache"
