"""Headers that tell a browser what it may do with a response: those of any response, and those of the pages."""

from collections.abc import Mapping
from typing import Final

RESPONSE: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Those of any response, unless it has its own: it is data of the caller's, and nothing to load, frame or guess."""

PAGE: Final[Mapping[str, str]] = {
    **RESPONSE,
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Vary": "Origin",
}
"""Those of a page and of its files, which are the same for everybody."""

OPEN_FILE: Final[Mapping[str, str]] = {
    **PAGE,
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
"""Those of a file that a page of any origin may load."""


def lines_of(headers: Mapping[str, str]) -> str:
    """Return headers as lines of a head, with the last one's end."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
