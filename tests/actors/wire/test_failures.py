import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.wire.failures import MAX_RETRY_AFTER, refusal, retry_after, secrets_of

HEAD = (
    b"POST /v1/x?api-version=2024-10-21&key=query-secret HTTP/1.1\r\nhost: example.com\r\n"
    b"authorization: Bearer bearer-secret\r\nx-api-key: header-secret\r\nuser-agent: tidegate\r\n\r\n"
)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (302, "provider_bad_response"),
        (400, "provider_rejected"),
        (401, "provider_credentials"),
        (403, "provider_credentials"),
        (402, "provider_billing"),
        (404, "provider_bad_response"),
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


def test_the_secrets_of_a_request() -> None:
    """Values of sensitive headers and parameters, and what follows a scheme; nothing else."""
    assert secrets_of(HEAD) == ("Bearer bearer-secret", "bearer-secret", "header-secret", "query-secret")


@given(st.binary(max_size=100), st.sampled_from(secrets_of(HEAD)), st.integers(300, 599))
def test_no_refusal_has_a_secret_of_its_request(noise: bytes, secret: str, status: int) -> None:
    """Whatever the body is, and wherever the secret stands in it."""
    for body in (noise + secret.encode() + noise, b'{"error":{"message":"%b"}}' % (noise.hex() + secret).encode()):
        error = refusal(status, {}, 0, body, secrets_of(HEAD))
        assert not any(part in error.detail + error.reason + str(error) for part in secrets_of(HEAD))
        assert error.status == status
