"""The table of all bounds. To add a bound, add a row to the module of its group."""

from collections.abc import Mapping
from typing import Final

from service.limits import caches, channels, connections, embeddings, providers, requests, sockets, tenants
from service.limits.bound import Bound

GROUPS: Final[Mapping[str, tuple[Bound, ...]]] = {
    "Tenants": tenants.BOUNDS,
    "Requests": requests.BOUNDS,
    "Cache": caches.BOUNDS,
    "Providers": providers.BOUNDS,
    "Embeddings": embeddings.BOUNDS,
    "Connections": connections.BOUNDS,
    "Sockets": sockets.BOUNDS,
    "Channels": channels.BOUNDS,
}
"""The rows by group, in the order in which they are shown."""
