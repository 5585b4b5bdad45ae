"""Media of a request in the forms that Anthropic takes: images of four types, PDFs, and plain texts."""

import base64
import binascii
import re
from typing import Final
from urllib.parse import unquote_to_bytes

PDF: Final = "application/pdf"
MAX_HEAD: Final = 1024  # characters of a `data:` URL before its data

_ALIASES: Final = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "application/acrobat": PDF,
    "application/vnd.pdf": PDF,
    "application/x-pdf": PDF,
    "text/pdf": PDF,
}
_STARTS: Final = (
    ("iVBORw0K", "image/png"),
    ("/9j/", "image/jpeg"),
    ("R0lGOD", "image/gif"),
    ("UklGR", "image/webp"),
    ("JVBERi", PDF),
)
"""How the data of a type begins, in base64. The vendor refuses an image of another type than it is said to have."""
_TEXTS: Final = re.compile(
    r"text/.+|.+\+(?:json|xml|yaml)"
    r"|application/(?:(?:x-)?(?:json|ndjson|jsonlines|yaml|toml|javascript|typescript|sh|httpd-php|python(?:-code)?)"
    r"|xml|ecmascript|graphql|sql|csv)"
)
_UNKNOWN: Final = frozenset({"", "application/octet-stream", "binary/octet-stream"})


def source_of(url: str) -> dict[str, str]:
    """Return the source of an image or a document: a URL, or the data of a ``data:`` URL with its true media type."""
    if url[:5].lower() != "data:":
        return {"type": "url", "url": url}
    comma = url.find(",", 0, MAX_HEAD)
    head, data = (url[5:comma], url[comma + 1 :]) if comma >= 0 else (url[5:MAX_HEAD], "")
    named, *parameters = head.lower().split(";")
    if "base64" not in map(str.strip, parameters):
        data = base64.b64encode(unquote_to_bytes(data)).decode()
    elif not data.isascii() or not data.isprintable() or " " in data or "%" in data:
        data = "".join(unquote_to_bytes(data).decode("latin-1").split())
    named = named.strip()
    media_type = next((kind for start, kind in _STARTS if data.startswith(start)), _ALIASES.get(named, named))
    return {"type": "base64", "media_type": media_type, "data": data}


def text_of(source: dict[str, str]) -> str | None:
    """Return the text of data that says that it is one, or does not say what it is and is one; else None."""
    media_type = source.get("media_type", "")
    if media_type not in _UNKNOWN and not _TEXTS.fullmatch(media_type):
        return None
    try:
        text = base64.b64decode(source["data"], validate=True).decode("utf-8-sig")
    except (ValueError, binascii.Error):
        return None
    return None if "\0" in text else text
