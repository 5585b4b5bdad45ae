"""A token issuer: keys of every type, and a real server that publishes them."""

import json
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from aiohttp import web
from joserfc import jwk, jws
from joserfc.errors import SecurityWarning

SECRET: Final = "a secret of at least thirty-two bytes"
RSA: Final = jwk.RSAKey.generate_key(2048)
EC: Final = jwk.ECKey.generate_key("P-256")
ED: Final = jwk.OKPKey.generate_key("Ed25519")
SHARED: Final = jwk.OctKey.import_key(SECRET)
KEYS: Final[dict[str, Any]] = {"HS256": SHARED, "RS256": RSA, "ES256": EC, "EdDSA": ED}
ALL: Final = [*KEYS, "none", "HS512", "PS256"]


def claims(**more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return the claims of a valid token, with ``more``; None leaves a claim out."""
    said = {"sub": "ann", "tenant": "acme", "exp": int(time.time()) + 600} | more
    return {name: value for name, value in said.items() if value is not None}


def sign(payload: object, algorithm: str = "HS256", key: Any = None, **header: Any) -> str:  # noqa: ANN401 - JSON
    """Return a token; its header is signed, too."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    registry = jws.JWSRegistry(algorithms=ALL, strict_check_header=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        chosen = KEYS[algorithm] if key is None else key
        return jws.serialize_compact({"alg": algorithm} | header, body, chosen, [algorithm], registry)


def published(key: Any, kid: str = "", **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return a key as a JWKS document lists it."""
    described: dict[str, Any] = key.as_dict(private=False)
    return described | ({"kid": kid} if kid else {}) | more


class Issuer:
    """A server that publishes keys, or answers as the test sets."""

    def __init__(self) -> None:
        self.url = ""
        self.asked = 0
        self.answer: web.Response | dict[str, Any] = {"keys": []}

    def publish(self, *keys: dict[str, Any]) -> None:
        """Publish these from now on."""
        self.answer = {"keys": list(keys)}

    async def respond(self, _request: web.Request) -> web.Response:
        """Answer a request."""
        self.asked += 1
        if isinstance(self.answer, dict):
            return web.json_response(self.answer)
        return web.Response(status=self.answer.status, body=self.answer.body)

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator["Issuer"]:
        """Serve on a free port of loopback."""
        issuer = cls()
        app = web.Application()
        app.router.add_get("/jwks.json", issuer.respond)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        issuer.url = f"http://127.0.0.1:{runner.addresses[0][1]}/jwks.json"
        try:
            yield issuer
        finally:
            await runner.cleanup()
