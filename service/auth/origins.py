"""Who may send: decides by ``Origin``, ``Sec-Fetch-Site`` and ``Host`` whether a web page may call the service."""

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from multidict import CIMultiDictProxy, istr

from protocol.errors import AccessDenied
from service.auth.origin_config import ANY, DEFAULT_PORTS, OriginConfig

SOCKET: Final = "/ws"
CLIENT: Final = "/client.js"  # a file without data, for pages of any origin
DOCUMENTS: Final = frozenset({"/", "/docs", "/openapi.json", "/errors/{code}"})  # what a link of any site may open
MAX_SHOWN: Final = 200  # characters of a header's value in a message

SEC_FETCH_SITE: Final = istr("Sec-Fetch-Site")
SEC_FETCH_MODE: Final = istr("Sec-Fetch-Mode")
FORWARDED_HOST: Final = istr("X-Forwarded-Host")
FORWARDED_PROTO: Final = istr("X-Forwarded-Proto")

_FOREIGN: Final = frozenset({"cross-site", "same-site"})
_SECURE: Final = {"ws": "http", "wss": "https"}  # what some proxies write as the scheme of an upgrade
_PAGES_SETTING: Final = "CORS_ALLOWED_ORIGINS"
_SOCKETS_SETTING: Final = "WS_ALLOWED_ORIGINS"


class OriginPolicy:
    """Decides which web pages may call.

    A browser sends a key in a header only where a page has set it, so calls with one need no ``check``.

    Args:
        config: which origins and hosts are allowed, and which proxies are trusted.
    """

    __slots__ = ("_config", "_cors", "_known_host", "_sockets", "_sockets_setting")

    def __init__(self, config: OriginConfig = OriginConfig()) -> None:  # noqa: B008 - it is frozen
        self._config = config
        self._sockets = config.sockets or config.pages
        self._sockets_setting = _SOCKETS_SETTING if config.sockets else _PAGES_SETTING
        self._cors = cors_headers(config.pages)
        self._known_host = ""  # the last one that was allowed

    def check_host(self, request: web.BaseRequest, *, keys: bool) -> None:
        """Check the ``Host``, as ``accepts_host`` does.

        Raises:
            AccessDenied: ``host_not_allowed``.
        """
        if not self.accepts_host(request, keys=keys):
            host, _ = self._addressed(request)
            detail = f"The host {shown(host)} is neither a name of this machine nor in ALLOWED_HOSTS"
            raise AccessDenied(detail, code="host_not_allowed")

    def accepts_host(self, request: web.BaseRequest, *, keys: bool) -> bool:
        """Return whether the service is called by a name of its own.

        A page of somebody else whose name was made to point at this machine calls it by that name.

        Args:
            request: the call.
            keys: whether the service has keys or tokens.
        """
        hosts = self._config.hosts
        if keys and not hosts:
            return True
        host = request.headers.get(hdrs.HOST, "")
        if self._config.proxies:
            host, _ = self._addressed(request)
        elif host == self._known_host:
            return True
        if host and not (ANY in hosts or _among(host, hosts) or _is_local(host)):
            return False
        self._known_host = host
        return True

    def check(self, request: web.BaseRequest, route: str, *, keys: bool) -> None:
        """Check where a call without a key in its headers comes from. Programs send none of the browsers' headers.

        Args:
            request: the call.
            route: the template of its route.
            keys: whether the service has keys or tokens; then only cookies are sent by browsers by themselves.

        Raises:
            AccessDenied: ``origin_not_allowed``.
        """
        if route == SOCKET:
            self._check_socket(request, keys=keys)
            return
        headers = request.headers
        origin = _named_origin(headers)
        if origin is None:
            site = headers.get(SEC_FETCH_SITE)
            if site is None or site not in _FOREIGN:
                return
        if (keys and hdrs.COOKIE not in headers) or route == CLIENT:
            return
        if origin is not None:
            self._check_page(request, origin)
        elif not _is_visit(request, route):
            raise AccessDenied(_unnamed(site), code="origin_not_allowed")

    def check_preflight(self, request: web.BaseRequest) -> None:
        """Check that the page which asks may send the call that it asks for.

        Raises:
            AccessDenied: ``origin_not_allowed``.
        """
        self._check_page(request, request.headers[hdrs.ORIGIN])

    def cors(self, origin: str, route: str) -> Mapping[str, str]:
        """Return the headers with which the page of ``origin`` may read a response.

        Any page may read why it can't open a socket: the response to a call of ``/ws`` has nothing else in it.
        """
        headers = self._cors.get(origin) or self._cors[ANY]
        return _READABLE if route == SOCKET and headers is _UNLISTED else headers

    # ---------------------------------------------------------------------------------------------------------- checks

    def _check_socket(self, request: web.BaseRequest, *, keys: bool) -> None:
        """Check who opens a socket.

        A browser names the origin with each upgrade, but not with the plain call of a page to its own service, by which
        it learns why an upgrade was refused; that one opens nothing, so there ``Referer`` says it.
        """
        headers = request.headers
        origin = _named_origin(headers)
        if origin is None:
            if hdrs.UPGRADE not in headers:
                origin = _origin_of(headers.get(hdrs.REFERER, "")) or None
            elif headers.get(SEC_FETCH_SITE) in _FOREIGN:
                raise AccessDenied(_unnamed(headers[SEC_FETCH_SITE]), code="origin_not_allowed")
        if origin is None or (keys and self._config.open_sockets):
            return
        if not _listed(origin, self._sockets) and not self._is_own(request, origin):
            raise self._refusal(request, origin, self._sockets_setting)

    def _check_page(self, request: web.BaseRequest, origin: str) -> None:
        if not _listed(origin, self._config.pages) and not self._is_own(request, origin):
            raise self._refusal(request, origin, _PAGES_SETTING)

    def _is_own(self, request: web.BaseRequest, origin: str) -> bool:
        """Whether an origin is the service's own: that of the address at which the browser called."""
        host, scheme = self._addressed(request)
        named, separator, address = origin.partition("://")
        if not separator or not host or (scheme and scheme != named):
            return False
        port = DEFAULT_PORTS.get(named, "/")
        return address.removesuffix(port) == host.lower().removesuffix(port)

    def _addressed(self, request: web.BaseRequest) -> tuple[str, str]:
        """Return the host that the browser called and the scheme: the latter only if a trusted proxy tells it."""
        headers = request.headers
        host = headers.get(hdrs.HOST, "")
        if not self._is_trusted(request):
            return host, ""
        scheme = _last(headers.getall(FORWARDED_PROTO, ())).lower()
        return _last(headers.getall(FORWARDED_HOST, ())) or host, _SECURE.get(scheme, scheme)

    def _is_trusted(self, request: web.BaseRequest) -> bool:
        if not self._config.proxies:
            return False
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        if not isinstance(peer, tuple):
            return False
        try:
            address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address):
            address = address.ipv4_mapped or address
        return any(address in network for network in self._config.proxies)

    def _refusal(self, request: web.BaseRequest, origin: str, setting: str) -> AccessDenied:
        host, scheme = self._addressed(request)
        own = f"{scheme}://{host}" if scheme else host
        detail = f"The origin {shown(origin)} is neither in {setting} nor the service's own, {shown(own)}"
        return AccessDenied(detail, code="origin_not_allowed")


def cors_headers(origins: Iterable[str]) -> dict[str, Mapping[str, str]]:
    """Return the headers for each origin, and under ``*`` those for all others."""
    names = frozenset(origins)
    readable = {"Access-Control-Expose-Headers": ", ".join(EXPOSED), hdrs.VARY: hdrs.ORIGIN}
    if ANY in names:
        return {ANY: {hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: ANY, **readable}}
    known = {hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS: "true", **readable}
    return {ANY: _UNLISTED} | {name: {hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: name, **known} for name in names}


def shown(text: str) -> str:
    """Return a header's value for a message: bounded, and in printable ASCII."""
    plain = text[:MAX_SHOWN].encode("ascii", "replace").decode()
    return "".join([char if char.isprintable() else "?" for char in plain])


def _unnamed(site: str | None) -> str:
    return f"A page of another site sent this without an `Origin` (`Sec-Fetch-Site: {shown(site or '')}`)"


def _named_origin(headers: "CIMultiDictProxy[str]") -> str | None:
    """Return the ``Origin``; None for none, and of several all of them, which together are no origin of anybody."""
    if hdrs.ORIGIN not in headers:
        return None
    return ", ".join(headers.getall(hdrs.ORIGIN))


def _listed(origin: str, origins: frozenset[str]) -> bool:
    return origin in origins or ANY in origins


def _among(host: str, hosts: frozenset[str]) -> bool:
    host = host.lower()
    return host in hosts or _name(host) in hosts


def _is_local(host: str) -> bool:
    """Whether a ``Host`` names this machine, as no name of somebody else's can."""
    name = _name(host.lower()).removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str:
    """Return a host without its port."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _is_visit(request: web.BaseRequest, route: str) -> bool:
    """Whether the browser opens a page, by a link of another site."""
    return request.method == "GET" and route in DOCUMENTS and request.headers.get(SEC_FETCH_MODE) == "navigate"


def _origin_of(address: str) -> str:
    """Return the origin of an address; empty for none."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc}".lower() if parts.scheme and parts.netloc else ""


def _last(values: Iterable[str]) -> str:
    """Return the last of the values of a header: that of the nearest proxy, which a client can't have written."""
    return ",".join(values).rpartition(",")[2].strip()


_LIMITS: Final = ("limit", "remaining", "reset")
_LIMITED: Final = ("requests", "tokens", "input-tokens", "output-tokens")
EXPOSED: Final = (
    "x-request-id",
    "request-id",
    "x-trace-id",
    "x-tidegate-source",
    "x-tidegate-attempts",
    "x-tidegate-cost-usd",
    "x-tidegate-overhead-ms",
    "x-tidegate-warning",
    "x-should-retry",
    "retry-after",
    "location",
    "idempotent-replayed",
    "etag",
    "allow",
    "www-authenticate",
    "ratelimit",
    "ratelimit-policy",
    *(f"x-ratelimit-{part}" for part in _LIMITS),
    *(f"x-ratelimit-{part}-{unit}" for part in _LIMITS for unit in ("requests", "tokens")),
    *(f"anthropic-ratelimit-{unit}-{part}" for unit in _LIMITED for part in _LIMITS),
)
"""The headers of a response that a page of another origin may read."""

_UNLISTED: Final[Mapping[str, str]] = {hdrs.VARY: hdrs.ORIGIN}
_READABLE: Final[Mapping[str, str]] = {hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: ANY, **_UNLISTED}
