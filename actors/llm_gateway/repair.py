"""Repair round: the request that gives a model its own answer back, with the errors of its validation."""

from typing import Final

import msgspec

from protocol.errors import SchemaMismatch
from protocol.llm import ChatMessage, ChatRequest

MAX_QUOTED: Final = 200  # characters of each path and of each message: both may quote the answer


def repair_request(request: ChatRequest, mismatch: SchemaMismatch) -> ChatRequest:
    """Return ``request`` with two more turns: the wrong answer, and its errors."""
    faults = "\n".join(f"- {_cut(fault.path)}: {_cut(fault.message)}" for fault in mismatch.errors)
    instruction = (
        f"This does not match the JSON Schema:\n{faults}\nAnswer with the corrected JSON only, without any other text."
    )
    turns = (ChatMessage(role="assistant", content=mismatch.raw), ChatMessage(role="user", content=instruction))
    return msgspec.structs.replace(request, messages=(*request.messages, *turns))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_QUOTED else text[: MAX_QUOTED - 1] + "…"
