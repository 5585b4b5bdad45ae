"""Estimates the input tokens of a request without a network call or a vocabulary."""

from typing import Final

import msgspec

from protocol.llm import ChatRequest, FilePart, ImagePart, ToolCallPart, VendorPart, parts_of

CHARS_PER_TOKEN: Final = 4  # in English prose; fewer in code and other languages
IMAGE_TOKENS: Final = 1600  # about what the vendors count for an image of a megapixel, or for a PDF page


def estimate_tokens(request: ChatRequest) -> int:
    """Estimate the input tokens of ``request``, at least 1. The model's own count is in the answer's usage.

    Texts, tool calls, tools and the schema count by their length; each image or other file counts the same.
    """
    chars = files = 0
    for message in request.messages:
        if isinstance(message.content, str) and not message.tool_calls:
            chars += len(message.content)
            continue
        for part in parts_of(message):
            if isinstance(part, ToolCallPart):
                chars += len(part.name) + len(part.arguments)
            elif isinstance(part, ImagePart | VendorPart):
                files += 1
            else:
                chars += len(part.text)
                files += isinstance(part, FilePart) and not part.text
    if request.tools:
        chars += len(msgspec.json.encode(request.tools))
    if request.schema is not None:
        chars += len(msgspec.json.encode(request.schema))
    return max(1, -(-chars // CHARS_PER_TOKEN) + files * IMAGE_TOKENS)
