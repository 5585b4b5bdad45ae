"""Route table: static paths are looked up in a dict; aiohttp's router resolves the others."""

from collections.abc import Awaitable
from functools import partial

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler


class RouteTable:
    """Calls the handler of a request's path, with the application's middlewares around it.

    The match info and the wrapped handler of each static path are made once, and shared by its requests.

    Args:
        app: the application, with all its routes added; it has no sub-applications.
        resolve: handles any other path: the application's own handler.
    """

    def __init__(self, app: web.Application, resolve: Handler) -> None:
        self._resolve = resolve
        self._static: dict[tuple[str, str], tuple[web.UrlMappingMatchInfo, Handler]] = {}
        for route in app.router.routes():
            resource = route.resource
            if isinstance(resource, web.PlainResource) and route.method != hdrs.METH_ANY:
                found = web.UrlMappingMatchInfo({}, route)
                found.add_app(app)
                found.freeze()
                self._static.setdefault(
                    (route.method, resource.canonical), (found, _with_middlewares(app, route.handler))
                )

    def __call__(self, request: web.Request) -> Awaitable[web.StreamResponse]:
        """Start handling a request."""
        known = self._static.get((request.method, request.rel_url.raw_path))
        if known is None or hdrs.EXPECT in request.headers:
            return self._resolve(request)
        found, handler = known
        request._match_info = found  # noqa: SLF001 - as the application does
        return handler(request)


def _with_middlewares(app: web.Application, handler: Handler) -> Handler:
    for middleware in reversed(app.middlewares):
        handler = partial(middleware, handler=handler)
    return handler
