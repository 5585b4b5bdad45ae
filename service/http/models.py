"""``GET /v1/models``: what can be asked for, as either vendor's clients read it."""

import time
from typing import Final

from aiohttp import web

from protocol import anthropic_answer, openai
from protocol.gateway import ListModels
from service.context import call_of, container_of
from service.permissions import listed

ASK_TIMEOUT: Final = 5.0  # seconds
CREATED: Final = web.AppKey("models_created", int)


def add_routes(app: web.Application) -> None:
    """Offer the list."""
    app[CREATED] = int(time.time())
    app.router.add_get("/v1/models", models)


async def models(request: web.Request) -> web.Response:
    """Return every model that the caller may ask for: those that chat, then those that only embed.

    Each was made when the service started. Anthropic's clients are known by their header.
    """
    container, principal = container_of(request), call_of(request).principal
    chat = await container.gateway.ask(ListModels(), timeout=ASK_TIMEOUT)
    names = {model.name for model in chat}
    others = await container.embeddings.ask(ListModels(), timeout=ASK_TIMEOUT)
    known = (*chat, *(model for model in others if model.name not in names))
    listing = [model for model in known if listed(principal, model.name)]
    dialect = anthropic_answer if "anthropic-version" in request.headers else openai
    body = dialect.models_body(listing, request.config_dict[CREATED])
    return web.Response(body=body, content_type="application/json")
