"""``POST /v1/embeddings``: OpenAI's dialect over the actor that embeds."""

from typing import Final

from aiohttp import web

from actors.embeddings.config import Bounds
from protocol.embeddings import Embed, Embedded, embeddings_body, parse_embeddings
from protocol.errors import FieldError, InvalidRequest
from service.auth.permissions import check_model
from service.context import call_of, container_of
from service.http.bodies import read_json
from service.http.json_response import Answer

ASK_TIMEOUT: Final = Bounds().total + 1.0  # seconds, so that the actor's own failure comes first
DEDUPE: Final = "x-tidegate-dedupe"
CHOICES: Final = {"": True, "on": True, "off": False}


def add_routes(app: web.Application) -> None:
    """Offer the address."""
    app.router.add_post("/v1/embeddings", embeddings)


async def embeddings(request: web.Request) -> Answer:
    """Embed texts. Identical texts share one vector, unless ``x-tidegate-dedupe: off`` says otherwise.

    A client that leaves waits for nothing any more; what others wait for goes on.
    """
    call, container = call_of(request), container_of(request)
    asked = parse_embeddings(await read_json(request, container.settings.max_body_bytes))
    check_model(call.principal, asked.model)
    message = Embed(
        model=asked.model,
        inputs=asked.inputs,
        dimensions=asked.dimensions,
        tenant=call.tenant,
        account=call.principal.account,
        dedupe=_dedupe(request),
        extra=asked.extra,
    )
    embedded = await container.embeddings.ask(message, timeout=ASK_TIMEOUT)
    return Answer(embeddings_body(embedded, asked.model, asked.encoding), headers=_headers(embedded))


def _dedupe(request: web.Request) -> bool:
    said = request.headers.get(DEDUPE, "").strip().lower()
    if said not in CHOICES:
        reason = "must be `on` or `off`"
        raise InvalidRequest(f"`{DEDUPE}` {reason}, got {said[:40]!r}", errors=(FieldError(DEDUPE, reason),))
    return CHOICES[said]


def _headers(embedded: Embedded) -> dict[str, str]:
    headers = {"x-tidegate-source": _source(embedded)}
    if embedded.usd is not None:
        headers["x-tidegate-cost-usd"] = f"{embedded.usd:f}"
    return headers


def _source(embedded: Embedded) -> str:
    """Return where the vectors are from: the dearest of all the sources."""
    if embedded.asked:
        return "upstream"
    return "joined" if embedded.joined else "cache"
