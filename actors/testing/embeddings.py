"""How a scripted upstream answers a call for vectors."""

import base64
import hashlib
import struct
from typing import Any, Final

import msgspec

from actors.testing.script import Send, Step
from protocol.embeddings import Input

DIMENSIONS: Final = 4


class EmbeddingsVoice:
    """Says OpenAI's embeddings: a vector for each input, in a list that begins with the last one.

    Args:
        body: the request's.
    """

    def __init__(self, body: dict[str, Any]) -> None:
        given = body["input"]
        self._body = body
        self._inputs = _inputs(given)

    def encode(self, step: Step) -> bytes:
        """Return the bytes of one step: only those that are given as they are."""
        return step.data if isinstance(step, Send) else b""

    def whole(self, _steps: tuple[Step, ...]) -> bytes:
        """Return the body of the answer; in a text a token is a word."""
        as_text = self._body.get("encoding_format") == "base64"
        size = self._body.get("dimensions", DIMENSIONS)
        vectors = [scripted_vector(given, size) for given in self._inputs]
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(struct.pack(f"<{size}f", *vector)).decode() if as_text else vector,
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
    """Return the vector that stands for an input: numbers from 0 up to 1 that a 32-bit float holds exactly."""
    digest = hashlib.shake_128(str(given).encode()).digest(size)
    return tuple(byte / 256 for byte in digest)


def _inputs(given: str | list[Any]) -> list[Input]:
    if isinstance(given, str):
        return [given]
    if isinstance(given[0], int):
        return [tuple(given)]
    return [one if isinstance(one, str) else tuple(one) for one in given]
