"""``GET /v1/models``: what can be asked for, as OpenAI's clients read it."""

import time
from typing import Final

from aiohttp import web

from protocol.gateway import ListModels
from protocol.openai import models_body
from service.context import call_of, container_of
from service.permissions import listed

ASK_TIMEOUT: Final = 5.0  # seconds
CREATED: Final = web.AppKey("models_created", int)


def add_routes(app: web.Application) -> None:
    """Offer the list."""
    app[CREATED] = int(time.time())
    app.router.add_get("/v1/models", models)


async def models(request: web.Request) -> web.Response:
    """Return every model that the caller may ask for; each was made when the service started."""
    known = await container_of(request).gateway.ask(ListModels(), timeout=ASK_TIMEOUT)
    principal = call_of(request).principal
    body = models_body([model for model in known if listed(principal, model.name)], request.config_dict[CREATED])
    return web.Response(body=body, content_type="application/json")
