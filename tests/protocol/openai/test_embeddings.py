import json
import struct
from typing import Any

import pytest

from protocol.embeddings import Embedded, floats
from protocol.errors import InvalidRequest
from protocol.openai.embeddings import embeddings_body, parse_embeddings, read_vectors, upstream_body


def parse(**fields: Any) -> Any:  # noqa: ANN401 - the parsed call
    """Parse a body with these fields."""
    return parse_embeddings(json.dumps({"model": "m", "input": "a", **fields}).encode())


def test_a_text_or_a_list_of_texts() -> None:
    """A text or a list of texts are inputs; ``user`` is ignored, unknown fields are kept for the upstream."""
    assert parse().inputs == ("a",)
    call = parse(input=["a", "b"], encoding_format="base64", dimensions=8, user="u", task="query")
    assert (call.inputs, call.encoding, call.dimensions) == (("a", "b"), "base64", 8)
    assert call.extra == {"task": "query"}
    assert parse(encoding_format=None).encoding == "float"


def test_the_tokens_of_a_text_or_of_several() -> None:
    """A flat array of tokens is one input, and is sent upstream unchanged."""
    assert parse(input=[1, 2]).inputs == ((1, 2),)
    call = parse(input=[[1, 2], [3]])
    assert call.inputs == ((1, 2), (3,))
    assert json.loads(upstream_body(call.inputs, "m", None, {}))["input"] == [[1, 2], [3]]


@pytest.mark.parametrize(
    ("fields", "path", "says"),
    [
        ({"input": [1, "a"]}, "$.input[0]", "must be an array of tokens"),
        ({"input": [1, -2]}, "$.input[0]", "must be an array of tokens"),
        ({"input": [[1, 2], []]}, "$.input[1]", "must be an array of tokens"),
        ({"input": [[1, 2], "a"]}, "$.input[1]", "must be an array of tokens"),
        ({"input": [[1, True]]}, "$.input[0]", "must be an array of tokens"),
        ({"input": [[2.5]]}, "$.input[0]", "must be an array of tokens"),
        ({"input": ["a", [1]]}, "$.input[1]", "must be a text"),
        ({"input": []}, "$.input", "must be 1 to 2048 texts, or arrays of tokens, got 0"),
        ({"input": ["a"] * 2049}, "$.input", "got 2049"),
        ({"input": ""}, "$.input[0]", "not empty"),
        ({"input": ["a", ""]}, "$.input[1]", "not empty"),
        ({"input": ["a", None]}, "$.input[1]", "must be a text"),
        ({"input": None}, "$.input", "Expected"),
        ({"model": ""}, "$.model", "Expected"),
        ({"model": "m" * 257}, "$.model", "Expected"),
        ({"dimensions": 0}, "$.dimensions", "Expected"),
        ({"encoding_format": "hex"}, "$.encoding_format", "Invalid"),
    ],
)
def test_an_invalid_field_is_named(fields: dict[str, Any], path: str, says: str) -> None:
    """An invalid field is named by its path, with the reason."""
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)
    assert [fault.path for fault in caught.value.errors] == [path]
    assert says in caught.value.detail


@pytest.mark.parametrize("body", [b"{", b"\xff", b""])
def test_a_body_that_is_not_json_is_malformed(body: bytes) -> None:
    """A body that is not JSON is ``malformed_json``."""
    with pytest.raises(InvalidRequest) as caught:
        parse_embeddings(body)
    assert caught.value.code == "malformed_json"


def test_vectors_come_and_go_in_both_encodings() -> None:
    """Numbers and base64 decode to the same vectors, in any order."""
    vector = struct.pack("<2f", 0.5, -2.0)
    embedded = Embedded(vectors=(vector, vector[::1]), tokens=3)
    as_numbers, as_text = (embeddings_body(embedded, "m", encoding) for encoding in ("float", "base64"))
    body = json.loads(as_numbers)
    assert body["data"][0] == {"object": "embedding", "index": 0, "embedding": [0.5, -2.0]}
    assert body["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    body["data"].reverse()
    for answer in (as_text, as_numbers, json.dumps(body).encode()):
        read = read_vectors(answer, 2)
        assert (read.vectors, read.tokens, read.model) == ((vector, vector), 3, "m")
    assert floats(vector) == (0.5, -2.0)


def test_our_own_fields_win() -> None:
    """Extra fields are sent, and can't replace our own."""
    body = json.loads(upstream_body(("a",), "m", 2, {"task": "query", "input": "x"}))
    assert body == {"task": "query", "input": ["a"], "model": "m", "encoding_format": "base64", "dimensions": 2}


def test_vectors_without_usage() -> None:
    """Without usage the tokens are None."""
    assert read_vectors(b'{"data":[{"index":0,"embedding":[1]}]}', 1).tokens is None
