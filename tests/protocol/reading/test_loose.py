"""Loose JSON, finish reasons, claims of usage, and failures within an answer."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import PROBLEMS, ProviderError
from protocol.llm import FinishReason
from protocol.reading.claims import MAX_TOKENS, Claims, count_of
from protocol.reading.failures import failure_in
from protocol.reading.finish import MAX_REASON, finish_of, word_of
from protocol.reading.loose import (
    clean,
    decode,
    encode,
    is_cut,
    json_text,
    name_of,
    named,
    place_of,
    split_half,
    split_name,
    whole_characters,
)

ANY_TEXT = st.text(st.characters(exclude_categories=()))
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'\xef\xbb\xbf{"a":1}', {"a": 1}),
        (b'["a\nb"]', ["a\nb"]),
        (b'{"a":"\\ud83d"}', {"a": "\ud83d"}),
        (b'{"a":"\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        (b'{"a":"b\xffc\xe4\xbd"}', {"a": "b\ufffdc\ufffd"}),
        (b"[Infinity,-Infinity]", [math.inf, -math.inf]),
        (b"[" + b"9" * 5000 + b"]", [math.inf]),
        (b"[" + b"9" * 30 + b"]", [int("9" * 30)]),
    ],
)
def test_what_strict_decoders_refuse_is_read(data: bytes, value: object) -> None:
    """It is decoded, and can then be encoded."""
    assert decode(data) == value
    assert json.loads(encode(decode(data))) == clean(value)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000, b"nonsense"])
def test_what_is_no_json_is_a_bad_response(data: bytes) -> None:
    """It is ``provider_bad_response``."""
    with pytest.raises(ProviderError) as caught:
        decode(data)
    assert caught.value.code == "provider_bad_response"


@given(ANY_JSON)
def test_what_was_read_is_strict_json_when_it_is_clean(value: Any) -> None:  # noqa: ANN401
    """Every value can be encoded, and is the same after it."""
    decoded = decode(json.dumps(value).encode())
    once = json.loads(encode(decoded))
    assert json.loads(encode(once)) == once
    json.dumps(once, ensure_ascii=False).encode()


@given(st.text(st.characters(codec="utf-8")), st.integers(0, 60))
def test_halves_of_a_pair_are_joined(text: str, at: int) -> None:
    """However UTF-16 is cut, the text is the same in the end; what stays alone is U+FFFD."""
    units = text.encode("utf-16-le")
    first = units[: 2 * at].decode("utf-16-le", "surrogatepass")
    second = units[2 * at :].decode("utf-16-le", "surrogatepass")
    begun, half = split_half(first)
    rest, none = split_half(half + second)
    assert (begun + rest, none) == (text, "")
    assert whole_characters("a\ud83d") == whole_characters("a\ude00") == "a\ufffd"


def test_ids_places_and_arguments_of_other_types() -> None:
    """They are read as what they mean, or as nothing."""
    names: list[object] = ["a", 7, None, "null", "None", [], True]
    indexes: list[object] = [1, "2", 3.0, -4, None, "x", 1.5, True, []]
    assert [name_of(value) for value in names] == ["a", "7", "", "", "", "", ""]
    assert [place_of(value) for value in indexes] == [
        *(1, 2, 3, -4),
        *[None] * 5,
    ]
    assert [json_text(value) for value in (None, "", '{"a"', {"a": 1}, {}, 5)] == ["", "", '{"a"', '{"a":1}', "{}", "5"]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", "stop"),
        ("STOP", "stop"),
        ("end_turn", "stop"),
        ("Max_Tokens", "length"),
        ("FinishReason.MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("maxPredictedTokensReached", "length"),
        ("contextLengthReached", "length"),
        ("context_length_exceeded", "length"),
        ("ERROR_LIMIT", "length"),
        ("maxTokens", "length"),
        ("eosFound", "stop"),
        ("endTurn", "stop"),
        ("toolCalls", "tool_calls"),
        ("ERROR_TOXIC", "content_filter"),
        ("tool_use", "tool_calls"),
        ("content-filter", "content_filter"),
        ("SAFETY", "content_filter"),
        ("news to us", "other"),
        (2, "other"),
        (True, "other"),
        ({"a": 1}, "other"),
        ("", None),
        ("null", None),
        ("None", None),
        (None, None),
        (False, None),
        ([], None),
    ],
)
def test_finish_reasons(word: object, reason: FinishReason | None) -> None:
    """Only known words are good reasons, whatever their case."""
    assert finish_of(word) == reason


@pytest.mark.parametrize(
    "word",
    [
        "error",
        "ABORT",
        "network_error",
        "insufficient_system_resource",
        "engine_error",
        "cancelled",
        "timeout",
        "networkError",
        "userStopped",
        "malformed_tool_use",
    ],
)
def test_a_reason_that_says_that_the_answer_broke_off_is_a_failure(word: str) -> None:
    """It is ``provider_error``."""
    with pytest.raises(ProviderError) as caught:
        finish_of(word)
    assert caught.value.code == "provider_error"


@given(ANY_TEXT)
def test_the_upstreams_own_word_is_safe_to_show(text: str) -> None:
    """It is printable, whole and bounded."""
    word = word_of(text)
    assert word.isprintable()
    assert len(word) <= MAX_REASON
    word.encode()


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (5, 5),
        (5.0, 5),
        ("5", 5),
        ("5.0", 5),
        (-5, 0),
        (5.5, 0),
        ("x", 0),
        (True, 0),
        (None, 0),
        (math.inf, 0),
        (math.nan, 0),
        ("nan", 0),
        (MAX_TOKENS + 1, 0),
        ([], 0),
    ],
)
def test_counts(value: object, count: int) -> None:
    """What can't be a count is 0."""
    assert count_of(value) == count


@given(st.lists(ANY_JSON | st.dictionaries(st.sampled_from(["prompt_tokens", "output_tokens"]), ANY_JSON), max_size=4))
def test_usage_is_never_negative(reports: list[Any]) -> None:
    """Whatever is claimed, the classes are not negative, and the cached input is part of the input."""
    claims = Claims()
    for report in reports:
        claims.add(report)
    for usage in (claims.inclusive(), claims.exclusive()):
        assert min(usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.reasoning_tokens) >= 0
        assert usage.cached_input_tokens + usage.cache_write_input_tokens <= usage.input_tokens
        assert usage.reasoning_tokens <= usage.output_tokens


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([{"prompt_tokens": 9, "completion_tokens": 2}, {"prompt_tokens": 0, "completion_tokens": 0}], (9, 2, 0, 0)),
        ([{"input_tokens": 9, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 4}}], (9, 2, 4, 0)),
        ([{"prompt_tokens": 9, "completion_tokens": 2, "prompt_cache_hit_tokens": 4}], (9, 2, 4, 0)),
        ([{"prompt_tokens": 9, "completion_tokens": 2, "cached_tokens": 4}], (9, 2, 4, 0)),
        ([{"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 99}}], (9, 0, 9, 0)),
        ([{"completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": 7}}], (0, 2, 0, 2)),
        (
            [
                {
                    "prompt_tokens": 9,
                    "completion_tokens": 2,
                    "total_tokens": 18,
                    "completion_tokens_details": {"reasoning_tokens": 7},
                }
            ],
            (9, 9, 0, 7),
        ),
    ],
)
def test_usage_is_read_wherever_it_stands(reports: list[Any], expected: tuple[int, ...]) -> None:
    """A later 0 replaces nothing; the reasoning may be counted beside the output."""
    claims = Claims()
    for report in reports:
        claims.add(report)
    usage = claims.inclusive()
    found = usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.reasoning_tokens
    assert found == expected


@pytest.mark.parametrize(
    "value",
    [
        {"error": {"message": "x"}},
        {"error": "x", "choices": [{}]},
        {"error": {}},
        {"error": True},
        [{"error": {"code": 503}}],
        {"object": "error", "message": "x"},
        {"type": "error"},
        {"base_resp": {"status_code": 1000}},
        {"detail": "Internal Server Error"},
        {"success": False, "errors": [{"code": 1}]},
        {"code": "InternalError", "message": "x"},
        {"message": "The system encountered an unexpected error"},
        {"message": "x", "type": "internal_server_error"},
        {"choices": [{}], "x_groq": {"error": "over capacity"}},
        {"choices": [{}], "error_code": 336501, "error_msg": "rate limit"},
        {"choices": [{}], "error_code": "17"},
        {"choices": [{}], "error_msg": "no"},
        {"choices": [{}], "code": 503, "message": "no"},
        {"choices": [{}], "success": False},
        {"choices": [{}], "errors": [{"message": "x"}]},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "error": {"message": "x"}}},
        {"type": "message_start", "message": {"error": "x"}},
    ],
)
def test_failures_stand_anywhere(value: object) -> None:
    """Each is a failure with a code of ours."""
    failure = failure_in(value)
    assert failure is not None
    assert failure.code in PROBLEMS


@pytest.mark.parametrize(
    "value",
    [
        {},
        None,
        {"error": None, "choices": [{}], "errors": []},
        {"base_resp": {"status_code": 0, "status_msg": ""}},
        {"type": "ping", "message": "x"},
        {"code": 200, "message": "success"},
        {"id": "x", "timings": {}},
        {"content": [{}], "message": "x"},
        {"choices": [{}], "error_code": 0, "error_msg": ""},
        {"choices": [{}], "error_code": "0", "error_msg": "Success"},
        {"choices": [{}], "code": 10000, "message": "ok"},
        {"choices": [{}], "x_groq": {"id": "x", "error": None}},
    ],
)
def test_what_is_no_failure(value: object) -> None:
    """Empty and foreign fields are none, unless the event is named so."""
    assert failure_in(value) is None
    assert failure_in(value, "error") is not None


@given(ANY_JSON)
def test_looking_for_a_failure_never_fails(value: Any) -> None:  # noqa: ANN401
    """Any JSON is looked at."""
    failure = failure_in(value)
    assert failure is None or failure.code in PROBLEMS


def test_json_that_breaks_off() -> None:
    """Each beginning of a value is cut, and neither the value nor nonsense is."""
    body = '{"a": [1, true, "é\\n"], "b": {}}'.encode()
    assert all(is_cut(body[:end]) for end in range(1, len(body)))
    assert not any(map(is_cut, (body, body + b" x", b"{nonsense", b"oops", b"[" * 100_000)))


@pytest.mark.parametrize("mark", [b"[DONE]", b"[done]", b'"[DONE]"', b" DONE ", b"'[done]'"])
def test_end_marks(mark: bytes) -> None:
    """Any spelling is the usual one; other texts stay as they are."""
    assert split_name(mark) == ("", b"[DONE]")
    assert split_name(named(mark, "message_stop")) == ("message_stop", b"[DONE]")
    assert split_name(b'"undone" ') == ("", b'"undone"')
