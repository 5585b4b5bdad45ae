"""The repair round: what a model is shown of its own answer that did not match."""

from typing import Final

import msgspec

from protocol.errors import SchemaMismatch
from protocol.llm import ChatMessage, ChatRequest

SHOWN: Final = 200  # characters of each path and of each message: both may quote the answer


def repairing(request: ChatRequest, mismatch: SchemaMismatch) -> ChatRequest:
    """Return ``request`` with two more turns: the wrong answer, and where it is wrong."""
    faults = "\n".join(f"- {_cut(fault.path)}: {_cut(fault.message)}" for fault in mismatch.errors)
    asked = (
        f"This does not match the JSON Schema:\n{faults}\nAnswer with the corrected JSON only, without any other text."
    )
    turns = (ChatMessage(role="assistant", content=mismatch.raw), ChatMessage(role="user", content=asked))
    return msgspec.structs.replace(request, messages=(*request.messages, *turns))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
