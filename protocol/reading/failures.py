"""Failures that stand within an answer: where they stand, and the codes that they mean."""

from typing import Any, Final

from protocol.errors import ProviderError
from protocol.reading.loose import place_of, text_of
from protocol.refusals import refusal_of

_NO_FAILURE: Final = ("", "0", "200", "ok", "success", "true")  # codes beside a message, lower-case


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
    if isinstance(status, dict) and place_of(status.get("status_code")):
        return refusal_of(0, status)
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
    return refusal_of(0, error)
