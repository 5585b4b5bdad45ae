"""The failure that an upstream reports, and the codes of HTTP statuses."""

from collections.abc import Iterable
from typing import Final

from protocol.error_text import without_secrets
from protocol.errors import ProviderError

_CODES: Final = {
    401: "provider_credentials",
    402: "provider_billing",
    403: "provider_credentials",
    404: "provider_bad_response",
    405: "provider_bad_response",
    407: "provider_bad_response",
    408: "provider_timeout",
    409: "provider_error",
    410: "provider_bad_response",
    413: "provider_rejected",
    421: "provider_bad_response",
    423: "provider_error",
    424: "provider_error",
    425: "provider_error",
    426: "provider_bad_response",
    429: "provider_rate_limited",
    444: "provider_error",  # nginx: closed without an answer
    460: "provider_error",  # AWS's load balancer: closed by the client
    495: "provider_credentials",  # nginx: the client's certificate
    496: "provider_credentials",
    497: "provider_bad_response",  # nginx: HTTP at a port of HTTPS
    498: "provider_unavailable",  # Groq: no capacity
    499: "provider_error",  # nginx: closed by the client
    500: "provider_error",
    502: "provider_error",
    504: "provider_timeout",
}
_EXPLAINED: Final = {
    "bad_tool_schema": "The provider refused a tool's schema: ",
    "content_policy": "The provider refused the content: ",
    "context_length_exceeded": "",
    "model_not_found": "The provider does not have this model: ",
    "provider_rejected": "The provider refused the request: ",
}
_CLIENT_SIDE: Final = 400
_SERVER_SIDE: Final = 500


def code_of(status: int) -> str:
    """Return the error code of an upstream's HTTP status: a row of ``errors.PROBLEMS``.

    A 404 says that the address is wrong, which is not the caller's fault; one that names a model is found by its words
    (``protocol.refusals``).
    """
    code = _CODES.get(status)
    if code is None:
        if status >= _SERVER_SIDE:
            return "provider_unavailable"
        return "provider_rejected" if status >= _CLIENT_SIDE else "provider_bad_response"
    return code


class UpstreamError(ProviderError):
    """An upstream reported an error: by its HTTP status, or within an answer.

    The caller sees the reason only where the request is at fault; of the operator's faults it sees the title.

    Attributes:
        status: the HTTP status, or the one that the error's own codes mean; 0 for none.
        reason: the upstream's own words, cleaned and bounded; empty for none.
    """

    def __init__(self, *, code: str, status: int = 0, reason: str = "", retry_after: float | None = None) -> None:
        super().__init__(_detail(code, reason), code=code, retry_after=retry_after)
        self.status = status
        self.reason = reason

    def conceal(self, secrets: Iterable[str]) -> None:
        """Remove ``secrets`` from the reason."""
        reason = without_secrets(self.reason, secrets)
        if reason != self.reason:
            self.reason = reason
            self.detail = _detail(self.code, reason) or self.problem.title
            self.args = (self.detail,)


def _detail(code: str, reason: str) -> str:
    """Return the caller's detail; empty for the code's title. Agents look for the words of a context's length alone."""
    start = _EXPLAINED.get(code)
    return "" if start is None or not reason else start + reason
