"""HTTP client for a vendor's package, which sends nothing. Importing this takes as long as importing that package."""

from typing import Any, Final, NoReturn

import httpx2

Response = httpx2.Response
NOT_SENT: Final = 204


class _Nowhere(httpx2.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx2.Request) -> NoReturn:
        raise httpx2.UnsupportedProtocol("requests are written here, and sent elsewhere", request=request)


class UnsentClient(httpx2.AsyncClient):
    """Sends nothing: every request returns an empty response at once, which has the request as it would be sent.

    It has no pool, no proxy and no certificate store.
    """

    def __init__(self) -> None:
        super().__init__(transport=_Nowhere(), trust_env=False)

    async def send(self, request: httpx2.Request, **_options: Any) -> httpx2.Response:  # noqa: ANN401
        """Return the empty response."""
        return httpx2.Response(NOT_SENT, request=request)
