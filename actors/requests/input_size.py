"""How much memory the input of a request holds: an estimate that is cheap for plain text."""

from sys import getsizeof
from typing import Final

import msgspec

from protocol.json.values import without_texts
from protocol.llm import ChatRequest
from protocol.requests import Delivery

MESSAGE_BYTES: Final = 200  # a message without its content
# what JSON takes as objects of Python, for each of these characters: a dict, a list, half a string, an item
JSON_BYTES: Final = ((b"{", 232), (b"[", 88), (b",", 40))
QUOTE_BYTES: Final = 30
EXACT: Final = 16 * 1024  # bytes of JSON beyond which what stands in its texts is not counted as JSON

_encode: Final = msgspec.json.Encoder(decimal_format="string").encode


def request_bytes(request: ChatRequest) -> int:
    """Return about how many bytes a request's messages, tools, schema and further fields hold."""
    size = MESSAGE_BYTES * len(request.messages)
    others: list[object] = []
    for message in request.messages:
        if isinstance(message.content, str):
            size += getsizeof(message.content)
        else:
            others.append(message.content)
        if message.tool_calls or message.extra:
            others.append((message.tool_calls, message.extra))
    if request.tools or request.schema or request.extra or request.stop:
        others.append((request.tools, request.schema, request.extra, request.stop))
    return size + json_bytes(others) if others else size


def delivery_bytes(delivery: Delivery) -> int:
    """Return about how many bytes a submission's notes and its echo hold."""
    if not delivery.metadata and not delivery.echo:
        return 0
    return json_bytes((delivery.metadata, delivery.echo))


def json_bytes(value: object) -> int:
    """Return about how many bytes a JSON value holds as objects: its texts, and what surrounds them."""
    encoded = _encode(value)
    if len(encoded) <= EXACT:
        return len(encoded) + encoded.count(b'"') * QUOTE_BYTES + _structure(encoded)
    return len(encoded) + sum([quotes * QUOTE_BYTES + _structure(rest) for rest, quotes in without_texts(encoded)])


def _structure(encoded: bytes) -> int:
    return sum([cost * encoded.count(character) for character, cost in JSON_BYTES])
