"""Base URLs of providers, as a log and the operator may see them."""

from typing import Final
from urllib.parse import urlsplit

from protocol.routes import ProviderSpec
from protocol.upstream import BASE_URLS

MAX_URL: Final = 200  # characters
VERTEX: Final = {"global": "aiplatform", "us": "aiplatform.us.rep", "eu": "aiplatform.eu.rep"}  # regions of its own


def shown_url(url: str) -> str:
    """Return scheme, host, port and path of an address, without credentials, query and fragment.

    Empty for one that can't be read.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    if not host:
        return ""
    host = f"[{host}]" if ":" in host else host
    at = host if port is None else f"{host}:{port}"
    return f"{parts.scheme}://{at}{parts.path.rstrip('/')}"[:MAX_URL]


def base_url_of(spec: ProviderSpec) -> str:
    """Return the base URL of a provider of the routes' file, as it may be shown; empty for one on this machine."""
    url = spec.base_url or BASE_URLS.get(spec.kind, "")
    if not url and spec.kind == "bedrock":
        url = f"https://bedrock-runtime.{spec.region}.amazonaws.com"
    if not url and spec.kind == "vertex":
        region = VERTEX.get(spec.region, f"{spec.region}-aiplatform")
        url = f"https://{region}.googleapis.com/v1"
    return shown_url(url)


def lacks_path(url: str) -> bool:
    """Whether a base URL has only a host."""
    return bool(url) and not urlsplit(url).path.rstrip("/")
