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
    limits,
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
                container.limits,
            )
        ],
        client_max_size=container.settings.max_body_bytes,
    )
    app[CONTAINER] = container
    app.on_response_prepare.append(stamp_responses(container.lifecycle))
    add_surfaces(app)
    return app


def add_surfaces(app: web.Application) -> None:
    """Add the routes of every surface, in the order in which the documentation has them."""
    for surface in (
        requests,
        openai,
        responses,
        anthropic,
        embeddings,
        models,
        channels,
        users,
        upgrade,
        tickets,
        usage,
        limits,
        health,
        docs,
        pages,
    ):
        surface.add_routes(app)
