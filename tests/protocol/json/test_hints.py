"""What a refused JSON value may be instead."""

from typing import Any

import msgspec
import pytest

from protocol.errors import InvalidRequest
from protocol.requests import SubmitBody
from protocol.websocket import commands
from service.http.bodies import decode

DECODER = msgspec.json.Decoder(SubmitBody)
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("fields", "path", "said"),
    [
        ({"dedupe": False}, "$.dedupe", "did you mean `options.dedupe`?"),
        ({"maxTokens": 1}, "$.maxTokens", "did you mean `options.maxTokens`?"),
        ({"modle": "m"}, "$.modle", "did you mean 'model'?"),
        ({"options": {"dedup": False}}, "$.options.dedup", "did you mean 'dedupe'?"),
        ({"options": {"onAbandon": "end"}}, "$.options.onAbandon", "allowed: 'cancel' or 'finish'"),
        (
            {"messages": [{"role": "bot", "content": ""}]},
            "$.messages[0].role",
            "'assistant', 'system', 'tool' or 'user'",
        ),
        ({"options": 7}, "$.options", "Expected `object`, got `int`"),
    ],
)
def test_what_was_meant_is_said(fields: dict[str, Any], path: str, said: str) -> None:
    """An option at the top is named with its place, and an enum with its values; in bodies and in frames."""
    body = {"messages": MESSAGES, **fields}
    with pytest.raises(InvalidRequest) as caught:
        decode(DECODER, msgspec.json.encode(body))
    with pytest.raises(InvalidRequest) as framed:
        commands.decode(msgspec.json.encode({"type": "submit", **body}))
    for error in (caught.value, framed.value):
        assert [fault.path for fault in error.errors] == [path]
        assert said in error.detail
        assert said in error.errors[0].message
