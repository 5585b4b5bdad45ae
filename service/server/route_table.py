"""Which handler answers: an address without a variable part is looked up at once, the rest is searched by aiohttp."""

from collections.abc import Awaitable
from functools import partial

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler


class Dispatch:
    """Hands a request to the handler of its address, with the application's middlewares around it.

    What a search would find, and the handler with all that is around it, is made once for each plain address: all its
    requests share it.

    Args:
        app: is not to change any more; without other applications within it.
        search: answers what is at no plain address: the application's own way.
    """

    def __init__(self, app: web.Application, search: Handler) -> None:
        self._search = search
        self._plain: dict[tuple[str, str], tuple[web.UrlMappingMatchInfo, Handler]] = {}
        for route in app.router.routes():
            resource = route.resource
            if isinstance(resource, web.PlainResource) and route.method != hdrs.METH_ANY:
                found = web.UrlMappingMatchInfo({}, route)
                found.add_app(app)
                found.freeze()
                self._plain.setdefault((route.method, resource.canonical), (found, _surrounded(app, route.handler)))

    def __call__(self, request: web.Request) -> Awaitable[web.StreamResponse]:
        """Begin to answer."""
        known = self._plain.get((request.method, request.rel_url.raw_path))
        if known is None or hdrs.EXPECT in request.headers:
            return self._search(request)
        found, handler = known
        request._match_info = found  # noqa: SLF001 - as the application does
        return handler(request)


def _surrounded(app: web.Application, handler: Handler) -> Handler:
    for middleware in reversed(app.middlewares):
        handler = partial(middleware, handler=handler)
    return handler
