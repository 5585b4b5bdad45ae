"""How many tokens a request has, before a model has counted them: an estimate without a network or a vocabulary."""

from typing import Final

import msgspec

from protocol.llm import ChatRequest, ImagePart, ReasoningPart, TextPart, VendorPart

CHARS_PER_TOKEN: Final = 4  # of English prose; code and other languages have fewer
IMAGE_TOKENS: Final = 1600  # about what the vendors count for a picture of a megapixel, or for a page of a PDF


def estimate_tokens(request: ChatRequest) -> int:
    """Return about how many tokens of input ``request`` is, at least 1. The model's own count is in the answer's usage.

    Texts, tool calls, tools and the schema count by their length, each image or other file the same whatever its size.
    """
    chars = files = 0
    for message in request.messages:
        content = message.content
        for part in (TextPart(text=content),) if isinstance(content, str) else content:
            text = "" if isinstance(part, ImagePart | VendorPart) else part.text
            chars += len(text)
            files += not text and not isinstance(part, TextPart | ReasoningPart)
        chars += sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
    if request.tools:
        chars += len(msgspec.json.encode(request.tools))
    if request.schema is not None:
        chars += len(msgspec.json.encode(request.schema))
    return max(1, -(-chars // CHARS_PER_TOKEN) + files * IMAGE_TOKENS)
