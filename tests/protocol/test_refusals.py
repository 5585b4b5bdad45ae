"""Whose fault an upstream's error is, and what the caller sees of it."""

import json
import re
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.anthropic import answer as anthropic
from protocol.context_length import in_anthropic_words, in_openai_words
from protocol.error_text import MAX_REASON, MAX_TEXT, facts_of, read_error, reason_of
from protocol.errors import PROBLEMS
from protocol.openai import answer as openai
from protocol.refusals import refusal_of
from tests.protocol.refusal_bodies import BODIES, Body

SHOWN = {"bad_tool_schema", "content_policy", "context_length_exceeded", "model_not_found", "provider_rejected"}
KEY = "tg-Upstream.Key+0123/45"
FIELDS = st.text(max_size=5) | st.sampled_from(
    ["error", "message", "code", "type", "status", "detail", "loc", "msg", "param", "n_ctx", "metadata", "raw"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.name)
def test_each_error_has_its_code_and_its_reason(body: Body) -> None:
    """The code says whose fault it is; the reason is shown where the request is at fault, and nowhere else."""
    error = refusal_of(body.status, read_error(body.raw))
    assert error.code == body.code
    assert body.reason in error.detail
    if error.code not in SHOWN or not body.reason:
        assert error.detail == PROBLEMS[error.code].title


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.name)
def test_each_error_has_both_vendors_envelopes(body: Body) -> None:
    """OpenAI's with our code, Anthropic's with its own type: a fault of the operator's is never the caller's."""
    error = refusal_of(body.status, read_error(body.raw))
    ours = json.loads(openai.error_body(error))["error"]
    theirs = json.loads(anthropic.error_body(error, "id"))["error"]
    operators = error.problem.family == "server"
    assert ours["code"] == theirs["details"]["error_code"] == body.code
    assert (error.problem.status >= 500) >= operators
    if error.code in SHOWN:
        assert ours["type"] == "invalid_request_error"
        assert theirs["type"] == ("not_found_error" if error.code == "model_not_found" else "invalid_request_error")
        assert error.problem.status == (404 if error.code == "model_not_found" else 400)
    if error.code == "context_length_exceeded":
        assert re.search("prompt is too long|exceed context limit", theirs["message"])
    if body.code in ("provider_billing", "provider_credentials"):
        assert (ours["type"], theirs["type"], error.problem.status) == ("server_error", "api_error", 502)


ADVICE = "decrease input length or `max_tokens` and try again"
VLLM = (
    "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens"
    " (4800 in the messages, 200 in the completion)."
)
TOO_LARGE = "This model's maximum context length is 8192 tokens and your request has 500 input tokens"
SUM = "This model's maximum context length is 200000 tokens. However, you requested 210000 tokens"


@pytest.mark.parametrize(
    ("message", "openai_words", "anthropic_words"),
    [
        (
            "prompt is too long: 210000 tokens > 200000 maximum",
            "This model's maximum context length is 200000 tokens. However, your messages resulted in 210000 tokens.",
            "prompt is too long: 210000 tokens > 200000 maximum",
        ),
        (VLLM, VLLM, "prompt is too long: 4800 tokens > 4096 maximum"),
        (
            f"'max_tokens' is too large: 9000. {TOO_LARGE}",
            f"'max_tokens' is too large: 9000. {TOO_LARGE}",
            f"input length and `max_tokens` exceed context limit: 500 + 9000 > 8192, {ADVICE}",
        ),
        (
            "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
            f"{SUM} (190000 in the messages, 20000 in the completion).",
            "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
        ),
        (
            "Your request exceeded model token limit: 131072",
            "This model's maximum context length is 131072 tokens. Your request exceeded model token limit: 131072",
            "prompt is too long: Your request exceeded model token limit: 131072",
        ),
        ("Prompt exceeds max length", "Prompt exceeds max length", "prompt is too long: Prompt exceeds max length"),
    ],
)
def test_a_context_s_length_is_said_in_each_vendor_s_words(
    message: str, openai_words: str, anthropic_words: str
) -> None:
    """Numbers are taken over where they are known, and nothing is made up where they are not."""
    assert (in_openai_words(message), in_anthropic_words(message)) == (openai_words, anthropic_words)


SIZES = {
    "anthropic-context": (210000, 200000),
    "bedrock-titan-context": (9000, 8192),
    "cohere-context": (140000, 128000),
    "fireworks-context": (140000, 131071),
    "gemini-context": (1200000, 1048576),
    "llama-cpp-python-context": (5000, 4096),
    "llamacpp-context": (9000, 4096),
    "llamacpp-newer-context": (9000, 4096),
    "mistral-context": (40000, 32768),
    "moonshot-context": (150000, 131072),
    "openai-context": (130000, 128000),
    "openrouter-context": (40000, 32768),
    "sglang-context": (9000, 8192),
    "tgi-context": (5000, 4096),
    "together-context": (9000, 8192),
    "vertex-context": (1048577, 1048576),
    "vllm-context": (4800, 4096),
    "xai-context": (537812, 131072),
}


@pytest.mark.parametrize("name", SIZES)
def test_the_sizes_are_found_in_every_vendor_s_words(name: str) -> None:
    """Agents that read the numbers of Anthropic's message find those of any upstream."""
    body = next(body for body in BODIES if body.name == name)
    tokens, maximum = SIZES[name]
    detail = refusal_of(body.status, read_error(body.raw)).detail
    assert in_anthropic_words(detail) == f"prompt is too long: {tokens} tokens > {maximum} maximum"


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-SECRET1234567890",
        "sk-ant-api03-abcdefghijkl",
        "AIzaSyA1234567890abcdefgh",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
        "gsk_abcdefghijklmno",
        "hf_abcdefghijklmnop",
        "Bearer abcdefgh",
        "api_key=abcdef12",
        "https://user:pass@example.com/v1",
        "http://10.0.0.7:8000/v1",
        "http://vllm:8000/v1/chat",
        "http://model.svc.cluster.local/x",
        "10.1.2.3:443",
        "/opt/models/x.gguf",
        "0123456789abcdef0123456789abcdef",
        "org-Abcdefghijkl",
        "vllm-0.vllm.default.svc.cluster.local:8000",
        "vllm.default.svc",
        "llm.internal.example.com",
        "ip-10-0-1-23.eu-west-1.compute.internal",
        "vllm-7d9f8b6c5d-x2x9z",
        "localhost:8000",
        "fe80::1",
        "[fd00::1]:8000",
        "::1",
        "::ffff:10.0.0.1",
        "2001:db8:0:0:0:0:0:1",
        "fe80::10%eth0",
        "00:1a:2b:3c:4d:5e",
        "postgresql://db.example.com/x",
        "s3://bucket/weights",
        r"C:\Users\bob\app.py",
        r"C:\Program Files\x y\app.py",
        "D:/models/x",
        r"\\fileserver\share\x",
        "~/models/x",
        "/models/llama/x",
        "vllm/engine/async_llm.py:123",
        "xoxb-123456789012-abcdefghij",
        "xapp-1-A0123-456-abcdef",
        "github_pat_11ABCDEFG0abcdefg",
        "glpat-abcdefghij",
        "npm_abcdefghij",
        "sk_live_abcdefghij",
        "hvs.CAESIJabcdef",
        "9f8e7d6c5b4a39281706",
        "cookie: sid=9f8e7d6c5b4a",
        "Set-Cookie: a=b123; c=d456",
        "JSESSIONID=AB12CD34EF56",
        "client_secret=abcdef",
        "bob@example.com",
        "arn:aws:iam::123456789012:role/x",
        "-----BEGIN PRIVATE KEY----- abc -----END PRIVATE KEY-----",
        KEY,
    ],
)
def test_a_reason_has_no_secret(secret: str) -> None:
    """Keys, tokens, internal addresses and paths are hidden; what is around them stays."""
    assert reason_of(f"Bad {secret} here", (KEY,)) == "Bad *** here"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("a\x00b\x1b[31mc\u200bd\u202ee\ud800f", "abcdef"),
        (" two\r\n\tlines ", "two lines"),
        ('no\nTraceback (most recent call last):\n  File "/app/x.py", line 1', "no"),
        ("Error: no\n    at Object.<anonymous> (/app/x.js:1:2)", "Error: no"),
        ("see <b>this</b> or <400>", "see <b>this</b> or <400>"),
        ("<p>no</p>", ""),
        ("…", ""),
        ("bad " + "x" * 500, "bad ***"),
        ("word " * 100, ("word " * 100)[:299].rpartition(" ")[0] + "…"),
        ("敏" * 400, "敏" * 299 + "…"),
        ("See https://openai.com/docs/x?key=1 for max_tokens", "See https://openai.com/docs/x?*** for max_tokens"),
        ("tools[0].function.parameters: additionalProperties", "tools[0].function.parameters: additionalProperties"),
        ("connect to vllm:8000 failed", "connect to *** failed"),
        ("Cannot connect to host vllm-0:8000 ssl:default", "Cannot connect to host *** ssl:default"),
    ],
)  # fmt: skip
def test_a_reason_is_one_clean_line(message: str, reason: str) -> None:
    """It is bounded, ends with a whole word, and has no control characters, markup or stack traces."""
    assert reason_of(message) == reason


@pytest.mark.parametrize(
    "message",
    [
        "messages.1: tool_use ids were found without tool_result blocks: toolu_01A09q90qw90lq917835lq9",
        "Invalid 'messages[2].tool_calls[0].id': string too long",
        "max_tokens:4096 is larger than 2048",
        "The model `meta-llama/Llama-3.1-8B-Instruct` does not exist",
        "claude-3-5-sonnet-20241022 and anthropic/claude-3.5-sonnet",
        "models/gemini-1.5-pro is not found for API version v1beta",
        "Unknown parameter: 'logit_bias'. See https://platform.openai.com/docs/api",
        "image/jpg and application/x-pdf are no media types",
        "Try again at 2026-01-01T00:00:00Z, or in 12:30:45",
        "std::string and/or a ratio of 3:2",
        "Limit 6000, Requested 7000 on tokens per minute (TPM)",
        "cookie is not a parameter, and session: expired",
    ],
)
def test_what_a_caller_needs_stays(message: str) -> None:
    """Names of models, parameters, tools and media, ids of calls, public addresses, times and numbers."""
    assert reason_of(message) == message


def test_secrets_are_concealed_afterwards() -> None:
    """A reader does not know the keys; the wire, which does, removes them."""
    error = refusal_of(0, {"type": "invalid_request_error", "message": f"not for {KEY}"})
    error.conceal((KEY, "for"))
    assert error.reason == "not for ***"
    assert error.detail == str(error) == "The provider refused the request: not for ***"


def test_an_error_is_read_within_bounds() -> None:
    """Depth, number and length of its values are bounded."""
    deep: object = "no"
    for _ in range(200):
        deep = {"error": deep}
    assert facts_of(deep).messages == []
    wide = facts_of({"errors": [{"message": f"m{number}", "code": number} for number in range(10_000)]})
    assert len(wide.messages) < 100
    assert len(facts_of("x" * 10_000_000).text) < 10_000
    assert read_error(b"[" * 100_000) == ("[" * 100_000)[:MAX_TEXT]


@pytest.mark.parametrize(
    "piece",
    [
        "1",
        "a.",
        "{",
        "{}",
        "<",
        "model ",
        "tools[0]",
        "tools.",
        "a1-",
        '{"error":"',
        "at x(",
        "ab/",
        "to a.b:",
        "C:\\",
        "1:",
        "a-1",
        "cookie: a=b;",
        "-----BEGIN ",
    ],
)
def test_an_error_is_read_in_little_time(piece: str) -> None:
    """No pattern takes long on a body that repeats what it begins with."""
    began = time.process_time()
    for body in (piece * 60_000, json.dumps({"message": piece * 60_000})):
        refusal_of(400, read_error(body.encode()))
    assert time.process_time() - began < 1


def check(detail: str) -> None:
    """Check what a caller may see."""
    assert len(detail) <= MAX_REASON + 60
    assert KEY not in detail
    assert not any(unicodedata.category(char)[0] == "C" for char in detail)


@given(st.binary(max_size=200), st.binary(max_size=200), st.sampled_from([0, 200, 302, 400, 401, 404, 422, 429, 500]))
def test_any_bytes_are_an_error(before: bytes, after: bytes, status: int) -> None:
    """No body raises, and none brings the key of the upstream to the caller."""
    body = before + KEY.encode() + after
    error = refusal_of(status, read_error(body), secrets=(KEY,))
    assert error.code in PROBLEMS
    check(error.detail)
    check(error.reason)


@given(JSON, st.sampled_from([0, 200, 400, 403, 404, 413, 429, 500, 503]))
def test_any_json_is_an_error(value: object, status: int) -> None:
    """No value raises; every surface has its envelope."""
    error = refusal_of(status, value)
    assert error.code in PROBLEMS
    check(error.detail)
    assert json.loads(openai.error_body(error))["error"]["code"] == error.code
    assert json.loads(anthropic.error_body(error, "id"))["type"] == "error"


@given(st.text(max_size=400), st.text(max_size=400))
def test_a_key_is_found_wherever_it_stands(before: str, after: str) -> None:
    """In a message, at the bound of its length too."""
    error = refusal_of(400, {"error": {"message": before + KEY + after}}, secrets=(KEY,))
    check(error.detail)
    assert "Upstream.Key" not in error.detail
