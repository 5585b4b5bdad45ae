"""Encodes the scripted upstream's answers to embeddings calls."""

import base64
import hashlib
import struct
from typing import Any, Final

import msgspec

from actors.testing.script import Send, Step
from protocol.embeddings import Input

DIMENSIONS: Final = 4


class EmbeddingsReplyEncoder:
    """Encodes OpenAI's embeddings: a vector for each input, in reverse order.

    Args:
        body: the body of the request.
    """

    def __init__(self, body: dict[str, Any]) -> None:
        given = body["input"]
        self._body = body
        self._inputs = _inputs(given)

    def encode(self, step: Step) -> bytes:
        """Return the bytes of a ``Send``; nothing for other steps."""
        return step.data if isinstance(step, Send) else b""

    def whole(self, _steps: tuple[Step, ...]) -> bytes:
        """Return the body of the answer. Each word of a text counts as one token."""
        in_base64 = self._body.get("encoding_format") == "base64"
        size = self._body.get("dimensions", DIMENSIONS)
        vectors = [scripted_vector(given, size) for given in self._inputs]
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(struct.pack(f"<{size}f", *vector)).decode() if in_base64 else vector,
            }
            for index, vector in enumerate(vectors)
        ]
        tokens = sum(len(given.split() if isinstance(given, str) else given) for given in self._inputs)
        body = {
            "object": "list",
            "data": data[::-1],
            "model": self._body["model"],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        return msgspec.json.encode(body)


def scripted_vector(given: Input, size: int = DIMENSIONS) -> tuple[float, ...]:
    """Return the vector of an input: numbers from 0 up to 1 that a 32-bit float holds exactly."""
    digest = hashlib.shake_128(str(given).encode()).digest(size)
    return tuple(byte / 256 for byte in digest)


def _inputs(given: str | list[Any]) -> list[Input]:
    if isinstance(given, str):
        return [given]
    if isinstance(given[0], int):
        return [tuple(given)]
    return [one if isinstance(one, str) else tuple(one) for one in given]
