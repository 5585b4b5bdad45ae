"""Route table: static paths are looked up in a dict; aiohttp's router resolves the others."""

from collections.abc import Awaitable
from functools import partial
from typing import Final

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.typedefs import Handler

from protocol.errors import InvalidRequest
from service.auth.origin_config import DEFAULT_PORTS

CONTINUE: Final = "100-continue"


class RouteTable:
    """Calls the handler of a request's path, with the application's middlewares around it.

    The match info and the wrapped handler of each static path are made once, and shared by its requests. ``Expect`` is
    left to whoever reads the body: a client is asked for one only after the checks of its call.

    Args:
        app: the application, with all its routes added; it has no sub-applications.
    """

    def __init__(self, app: web.Application) -> None:
        self._app = app
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
        message = request._message  # noqa: SLF001 - the address as it was sent
        if message.version is not HttpVersion11 or message.path[:1] != "/" or hdrs.EXPECT in message.headers:
            return self._unusual(request)
        return self._route(request)

    def _route(self, request: web.Request) -> Awaitable[web.StreamResponse]:
        known = self._static.get((request.method, request.rel_url.raw_path))
        if known is None:
            return self._resolve(request)
        found, handler = known
        request._match_info = found  # noqa: SLF001 - as the application does
        return handler(request)

    async def _resolve(self, request: web.Request) -> web.StreamResponse:
        found = await self._app.router.resolve(request)
        found.add_app(self._app)
        found.freeze()
        request._match_info = found  # noqa: SLF001 - as the application does
        return await _with_middlewares(self._app, found.handler)(request)

    async def _unusual(self, request: web.Request) -> web.StreamResponse:
        """Handle a request of another version of HTTP, with a whole address as its target, or with ``Expect``.

        Raises:
            InvalidRequest: ``http_version_not_supported``, ``malformed_request`` or ``expectation_failed``.
        """
        message = request._message  # noqa: SLF001 - as it was sent
        if message.version not in {HttpVersion10, HttpVersion11}:
            raise InvalidRequest(code="http_version_not_supported")
        if message.path[:1] != "/" and not _is_for_host(request):
            raise InvalidRequest("The target is of another host than `Host`", code="malformed_request")
        expected = message.headers.get(hdrs.EXPECT, "") if message.version == HttpVersion11 else ""
        if not expected:
            return await self._route(request)
        if expected.lower() != CONTINUE:
            raise InvalidRequest(code="expectation_failed")
        response = await self._route(request)
        if not request.content.is_eof():
            response.force_close()  # whether the body still comes is not known
        return response


def _is_for_host(request: web.Request) -> bool:
    """Whether a target that is a whole address names the host that ``Host`` names; others name none."""
    url = request._message.url  # noqa: SLF001 - the address as it was sent
    if not url.absolute:
        return True
    port = DEFAULT_PORTS.get(url.scheme, "/")
    host = request.headers.get(hdrs.HOST, "").lower()
    return url.raw_authority.lower().removesuffix(port) == host.removesuffix(port)


def _with_middlewares(app: web.Application, handler: Handler) -> Handler:
    for middleware in reversed(app.middlewares):
        handler = partial(middleware, handler=handler)
    return handler
