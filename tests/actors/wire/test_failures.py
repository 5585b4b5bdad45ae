import pytest

from actors.wire.failures import MAX_RETRY_AFTER, refusal, retry_after


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (302, "provider_bad_response"),
        (400, "provider_rejected"),
        (401, "provider_credentials"),
        (403, "provider_credentials"),
        (404, "provider_rejected"),
        (408, "provider_timeout"),
        (409, "provider_error"),
        (422, "provider_rejected"),
        (429, "provider_rate_limited"),
        (500, "provider_error"),
        (502, "provider_error"),
        (503, "provider_unavailable"),
        (529, "provider_unavailable"),
    ],
)
def test_each_status_has_a_code(status: int, code: str) -> None:
    """An upstream's status is mapped to a code."""
    assert refusal(status, {}, 0).code == code


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "9", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:30 GMT"}, 20.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:01 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "1e9"}, MAX_RETRY_AFTER),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """Milliseconds, seconds and dates are parsed; other values are ignored."""
    assert retry_after(headers, 10.0) == seconds
