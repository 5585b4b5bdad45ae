"""Failures that stand within an answer: where they stand, and the codes that they mean."""

from typing import Any, Final

from protocol.errors import ProviderError
from protocol.reading.loose import place_of, text_of
from protocol.upstream import code_of

_STATUSES: Final = range(300, 600)
_NO_FAILURE: Final = ("", "0", "200", "ok", "success", "true")  # codes beside a message, lower-case
_WORDS: Final = (  # in the type, the code or the status of an error, in this order
    ("provider_rate_limited", ("rate_limit", "ratelimit", "insufficient_quota", "tokens", "requests")),
    ("provider_rate_limited", ("resource_exhausted", "throttling", "too_many")),
    ("provider_credentials", ("authentication", "permission", "unauthenticated", "api_key", "billing")),
    ("provider_rejected", ("invalid_request", "context_length", "not_found", "request_too_large", "invalid_argument")),
    ("provider_timeout", ("timeout", "deadline_exceeded")),
    ("provider_unavailable", ("overloaded", "unavailable")),
)
_MINIMAX: Final = {
    1001: "provider_timeout",
    1002: "provider_rate_limited",
    1004: "provider_credentials",
    1008: "provider_credentials",
    1026: "provider_rejected",
    1027: "provider_rejected",
    1039: "provider_rate_limited",
    1041: "provider_rate_limited",
    2013: "provider_rejected",
    2049: "provider_credentials",
}


def failure_in(value: Any, name: str = "") -> ProviderError | None:  # noqa: ANN401 - any JSON
    """Return the failure that the JSON of an event or of a whole body reports; None for none.

    Args:
        value: the JSON.
        name: of the server-sent event; one that is named ``error`` is a failure, whatever its data.
    """
    if isinstance(value, list):
        found = (failure_in(item) for item in value if isinstance(item, dict))
        return next((failure for failure in found if failure is not None), None)
    if not isinstance(value, dict):
        return _failure(value) if name == "error" else None
    error = value.get("error")
    if error or (error == {} and not value.get("choices")):
        return _failure(error, value)
    if name == "error" or value.get("object") == "error" or value.get("type") == "error":
        return _failure(value)
    status = value.get("base_resp")
    if isinstance(status, dict) and (code := place_of(status.get("status_code"))):
        return ProviderError(code=_MINIMAX.get(code, "provider_error"))
    return None if value.get("choices") or value.get("content") else _flat(value)


def _flat(value: dict[str, Any]) -> ProviderError | None:
    """Return the failure of an object that has no content and may be an error itself."""
    if value.get("errors") or value.get("success") is False or isinstance(value.get("detail"), str):
        return _failure(value)
    message = value.get("message") or value.get("msg")
    if not isinstance(message, str):
        return None
    kind = text_of(value.get("type")).lower()
    code = text_of(value.get("code")).lower()
    if code not in _NO_FAILURE or (not code and (not kind or "error" in kind or "exception" in kind)):
        return _failure(value)
    return None


def _failure(error: Any, around: Any = None) -> ProviderError:  # noqa: ANN401 - any JSON
    """Return the failure of an error: an object, or anything else within the object ``around``."""
    if not isinstance(error, dict):
        error = around if isinstance(around, dict) else {}
    words = [text_of(error.get(field)) for field in ("type", "code", "status", "status_code")]
    for word in words:
        if word.isascii() and word.isdigit() and int(word[:4]) in _STATUSES:
            return ProviderError(code=code_of(int(word)))
    text = " ".join(words).lower()
    for code, parts in _WORDS:
        if any(part in text for part in parts):
            return ProviderError(code=code)
    return ProviderError(code="provider_error")
