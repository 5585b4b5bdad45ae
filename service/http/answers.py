"""Answers in JSON that nobody on the way may keep."""

from collections.abc import Mapping
from typing import Final

import msgspec
from aiohttp import web

_encode: Final = msgspec.json.Encoder().encode


def json_answer(
    value: msgspec.Struct, *, status: int = web.HTTPOk.status_code, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return ``value`` as the body; money is a text in it, exact."""
    return web.Response(
        body=_encode(value),
        status=status,
        headers={"Cache-Control": "no-store", **(headers or {})},
        content_type="application/json",
    )
