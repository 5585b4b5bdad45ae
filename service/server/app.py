"""The web application: the routes of every surface, and the middleware around them."""

from aiohttp import web

from service.auth.origins import OriginPolicy
from service.container import Container
from service.context import CONTAINER
from service.http import (
    anthropic,
    channels,
    docs,
    embeddings,
    health,
    models,
    openai,
    pages,
    requests,
    responses,
    tickets,
    usage,
    users,
)
from service.middleware.calls import call_layer, stamp_responses
from service.websocket import upgrade


def build_app(container: Container) -> web.Application:
    """Return the application that serves ``container``; the caller closes the container."""
    app = web.Application(
        middlewares=[
            call_layer(
                container.auth,
                container.lifecycle,
                container.telemetry.tracer,
                OriginPolicy(container.settings.origins()),
            )
        ],
        client_max_size=container.settings.max_body_bytes,
    )
    app[CONTAINER] = container
    app.on_response_prepare.append(stamp_responses(container.lifecycle))
    for surface in (
        health,
        docs,
        pages,
        requests,
        openai,
        responses,
        anthropic,
        embeddings,
        models,
        tickets,
        usage,
        channels,
        users,
        upgrade,
    ):
        surface.add_routes(app)
    return app
