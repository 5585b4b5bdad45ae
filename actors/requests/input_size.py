"""How much memory the input of a request holds: an estimate that is cheap for plain text."""

from sys import getsizeof
from typing import Final

import msgspec

from protocol.llm import ChatRequest
from protocol.requests import Delivery

MESSAGE_BYTES: Final = 200  # a message without its content
# what JSON takes as objects of Python, for each of these characters: a dict, a list, half a string, an item
JSON_BYTES: Final = ((b"{", 232), (b"[", 88), (b'"', 30), (b",", 40))

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
    return len(encoded) + sum([cost * encoded.count(character) for character, cost in JSON_BYTES])
