"""How signed tokens are verified: values and their defaults."""

import msgspec


class TokenConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of a token verifier. Without a secret and an address, no tokens are accepted.

    Attributes:
        secret: verifies HS256; empty for none.
        jwks_url: the address of the public keys that verify the other algorithms; empty for none.
        issuer: the ``iss`` that a token must have; empty for any.
        audience: the ``aud`` that a token must have; empty: only tokens without one.
        leeway: seconds by which the clocks of the issuer and of the service may differ.
        fetch_allowed: where the public keys may be, beside the internet, as in ``FetchConfig``.
    """

    secret: bytes = b""
    jwks_url: str = ""
    issuer: str = ""
    audience: str = ""
    leeway: float = 30.0
    fetch_allowed: tuple[str, ...] = ()

    @property
    def enabled(self) -> bool:
        """Whether tokens are accepted."""
        return bool(self.secret or self.jwks_url)
