"""API keys: 256 random bits each, held only as digests, each with what its holder may do."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Final, Protocol

import msgspec

from protocol.budgets import Account, Budget
from protocol.errors import ConfigurationError
from protocol.identity import ChannelGrant, Principal, Scope

DIGEST_BYTES: Final = 32
TENANT_BYTES: Final = 8  # 16 hex digits: short in a cache key, and no two of a few thousand keys share one
KEY_PREFIX: Final = "tg_"
KEY_BYTES: Final = 32
PRIVATE: Final = "~"  # what the names of tenants begin with that nobody has named
USUAL_SCOPES: Final[tuple[Scope, ...]] = ("inference", "channels")

TENANT_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}$"
KEY_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

Tenant = Annotated[str, msgspec.Meta(pattern=TENANT_PATTERN)]
Pattern = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Variable = Callable[[str], str | None]
"""Looks a variable of the environment up; None where it is not set."""


class KeySpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key as the operator describes it: by ``hash`` or by ``env``, never by itself.

    Attributes:
        hash: its digest in hex digits, as ``tidegate key create`` prints it.
        env: the variable that holds it.
        tenant: whose requests its holder sees; None for one of its own.
        scopes: the parts of the service that it opens.
        models: patterns of the models that may be asked for.
        channels: what may be done in which channels.
        budgets: what it may spend; its spending is kept under its name.
        default: what the model ``default`` means for it; empty: what it means for everybody.
        disabled: whether it opens nothing for now.
    """

    hash: Annotated[str, msgspec.Meta(pattern=r"^(?:[0-9a-f]{64})?$")] = ""
    env: str = ""
    tenant: Tenant | None = None
    scopes: tuple[Scope, ...] = USUAL_SCOPES
    models: tuple[Pattern, ...] = ("*",)
    channels: tuple[ChannelGrant, ...] = (ChannelGrant("*"),)
    budgets: tuple[Budget, ...] = ()
    default: Annotated[str, msgspec.Meta(max_length=256)] = ""
    disabled: bool = False


class Keys(Protocol):
    """Where keys are known. The ones here are in memory; a database would answer for most of its own at once too."""

    @property
    def required(self) -> bool:
        """Whether callers have to show who they are."""

    def digest(self, key: str) -> bytes:
        """Return the form in which keys are known."""

    def known(self, digest: bytes) -> Principal | None:
        """Return whose key it is, as far as that can be said at once."""

    async def find(self, digest: bytes) -> Principal | None:
        """Return whose key it is, from wherever it is kept; None for nobody's.

        Whatever it raises says that keys can't be looked up now, and never that this one is unknown.
        """


class KeyRing:
    """The keys of the settings and of the file, in memory.

    A key is looked up by its digest, so the time it takes says nothing about how much of a guess was right. Once there
    have been keys, one is required until the end: a file that has lost its last key opens nothing.

    Args:
        keys: those to which everything is allowed; each is a tenant of its own.
        pepper: at most 64 bytes without which no digest of a key can be made; may be empty.
        variable: finds the keys of which only a variable's name is known.
    """

    __slots__ = ("_everything", "_hasher", "_held", "_required", "_variable")

    def __init__(self, keys: Iterable[str] = (), *, pepper: bytes = b"", variable: Variable = lambda _: None) -> None:
        self._hasher = _hasher(pepper)
        self._variable = variable
        self._everything = {self.digest(key): Principal(tenant=tenant_of(key)) for key in keys}
        self._held = {digest: (digest, principal) for digest, principal in self._everything.items()}
        self._required = bool(self._held)

    @property
    def required(self) -> bool:
        """Whether there are keys, or have been."""
        return self._required

    def digest(self, key: str) -> bytes:
        """Return the form in which keys are known; any text has one."""
        hasher = self._hasher.copy()
        hasher.update(_bytes_of(key))
        return hasher.digest()

    def known(self, digest: bytes) -> Principal | None:
        """Return whose key it is; None for nobody's."""
        held, principal = self._held.get(digest, (b"", None))
        return principal if hmac.compare_digest(held, digest) else None

    async def find(self, digest: bytes) -> Principal | None:
        """Return whose key it is; None for nobody's."""
        return self.known(digest)

    def replace(self, specs: Mapping[str, KeySpec]) -> tuple[Principal, ...]:
        """Hold these beside those of the settings, and no others, from now on; return whose keys open nothing any more.

        Raises:
            ConfigurationError: one of them can't be held, and nothing has changed; the message names it.
        """
        principals = dict(self._everything)
        names: dict[bytes, str] = dict.fromkeys(principals, "one of API_KEYS")
        for name, spec in specs.items():
            digest = self._digest_of(name, spec)
            if digest in names:
                raise ConfigurationError(f"keys.{name}: it is the same key as {names[digest]}")
            names[digest] = f"keys.{name}"
            if not spec.disabled:
                principals[digest] = principal_of(name, spec)
        gone = tuple(principal for digest, (_, principal) in self._held.items() if digest not in principals)
        self._held = {digest: (digest, principal) for digest, principal in principals.items()}
        self._required = self._required or bool(names)
        return gone

    def _digest_of(self, name: str, spec: KeySpec) -> bytes:
        if bool(spec.hash) == bool(spec.env):
            raise ConfigurationError(f"keys.{name}: it needs either `hash` or `env`")
        if spec.hash:
            return bytes.fromhex(spec.hash)
        key = self._variable(spec.env)
        if not key:
            raise ConfigurationError(f"keys.{name}.env: the variable {spec.env} is not set")
        return self.digest(key)


def check_keys(specs: Mapping[str, KeySpec]) -> None:
    """Refuse what the types of a key's description allow but nobody can mean.

    Raises:
        ConfigurationError: the message names the key.
    """
    for name, spec in specs.items():
        if not KEY_NAME.fullmatch(name):
            raise ConfigurationError(f"keys.{name[:80]}: a name is 1 to 64 letters, digits, `_` and `-`")
        for index, budget in enumerate(spec.budgets):
            if budget.usd is None and budget.tokens is None:
                raise ConfigurationError(f"keys.{name}.budgets[{index}]: it needs `usd` or `tokens`")


def principal_of(name: str, spec: KeySpec) -> Principal:
    """Return who holds the key that ``spec`` describes."""
    return Principal(
        tenant=spec.tenant or tenant_of("key", name),
        subject=name,
        scopes=spec.scopes,
        models=spec.models,
        channels=spec.channels,
        account=Account(name, spec.budgets),
        default=spec.default,
    )


def new_key() -> str:
    """Return a key that nobody can guess."""
    return KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)


def digest_of(key: str, pepper: bytes = b"") -> bytes:
    """Return a key's digest; with a ``pepper`` nobody else can make it."""
    hasher = _hasher(pepper)
    hasher.update(_bytes_of(key))
    return hasher.digest()


def _hasher(pepper: bytes) -> "hashlib.blake2b":
    return hashlib.blake2b(digest_size=DIGEST_BYTES, key=pepper, person=b"tidegate-key")


def _bytes_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def tenant_of(*parts: str) -> str:
    """Return the name of a tenant that nobody has named: the same in every process, and never one that has been given.

    Nothing can be had back from it.
    """
    text = "\0".join(parts).encode("utf-8", "surrogateescape")
    return PRIVATE + hashlib.blake2b(text, digest_size=TENANT_BYTES, person=b"tidegate-tenant").hexdigest()
