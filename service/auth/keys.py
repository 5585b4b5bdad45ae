"""API keys: 256 random bits each, held only as digests, each with its permissions."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Final, Literal, Protocol

import msgspec

from actors.fair_shares import Tenants
from protocol.budgets import Account, Budget
from protocol.errors import ConfigurationError, FieldError
from protocol.identity import ANONYMOUS, ChannelGrant, Principal, Scope
from protocol.limits import PLANS, CallerPlan, Limits, Plan, caller_plan
from protocol.nearest import nearest
from protocol.routes import Field

DIGEST_BYTES: Final = 32
TENANT_BYTES: Final = 8  # 16 hex digits: short in a cache key, and no two of a few thousand keys share one
MIN_KEY: Final = 16  # characters
GUESSED: Final = "a shorter one can be guessed; `tidegate key create NAME` makes one"
KEY_PREFIX: Final = "tg_"
KEY_BYTES: Final = 32
PRIVATE: Final = "~"  # the first character of a derived tenant's name
OnRevoke = Literal["finish", "cancel"]
DEFAULT_SCOPES: Final[tuple[Scope, ...]] = ("inference", "channels")

TENANT_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}$"
KEY_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

Tenant = Annotated[str, msgspec.Meta(pattern=TENANT_PATTERN)]
Pattern = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Variable = Callable[[str], str | None]
"""Returns an environment variable; None where it is not set."""


class KeySpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key in the routes' file: its ``hash`` or its ``env``, never the key itself.

    Attributes:
        hash: the key's digest in hex digits, as ``tidegate key create`` prints it.
        env: the environment variable that holds the key.
        tenant: the tenant whose requests and channels its holder sees; None for a tenant of its own.
        scopes: the parts of the service that the key opens.
        models: patterns of the models that may be used.
        channels: the rights in channels.
        budgets: spending limits; the spending is recorded under the key's name.
        plan: the name of the plan that limits the key; empty for none.
        limits: limits of its own, which hold beside those of the plan.
        default: the model that ``default`` means for this key; empty for the service's default.
        pass_fields: the fields of the vendors' dialects that its calls may send upstream; None for what the route says.
        disabled: whether the key is refused for now.
        on_revoke: what happens to running requests that the key has submitted, when it is disabled or removed: they
            ``finish``, for the other keys of the tenant, or the service does ``cancel`` them.
    """

    hash: Annotated[str, msgspec.Meta(pattern=r"^(?:[0-9a-f]{64})?$")] = ""
    env: str = ""
    tenant: Tenant | None = None
    scopes: tuple[Scope, ...] = DEFAULT_SCOPES
    models: tuple[Pattern, ...] = ("*",)
    channels: tuple[ChannelGrant, ...] = (ChannelGrant("*"),)
    budgets: tuple[Budget, ...] = ()
    plan: Annotated[str, msgspec.Meta(max_length=64)] = ""
    limits: Limits = ()
    default: Annotated[str, msgspec.Meta(max_length=256)] = ""
    pass_fields: tuple[Field, ...] | None = None
    disabled: bool = False
    on_revoke: OnRevoke = "finish"


class KeyChanges(msgspec.Struct, frozen=True):
    """What a new version of the file has changed.

    Attributes:
        revoked: the holders of keys that are not valid any more, or are another holder's now.
        changed: the holders of keys whose rights are not what they were, as they are now.
    """

    revoked: tuple[Principal, ...] = ()
    changed: tuple[Principal, ...] = ()


class KeyStore(Protocol):
    """Finds the holders of keys. ``KeyRing`` holds all of them in memory; a database would cache most of them."""

    @property
    def required(self) -> bool:
        """Whether callers need a key."""

    def digest(self, key: str) -> bytes:
        """Return the digest of a key."""

    def known(self, digest: bytes) -> Principal | None:
        """Return the key's holder without waiting; None where it is unknown or not cached."""

    async def find(self, digest: bytes) -> Principal | None:
        """Return the key's holder; None where the key is unknown.

        Any exception means that keys can't be looked up now, never that the key is unknown.
        """


class KeyRing:
    """The keys of the settings and of the file, in memory.

    A key is looked up by its digest, so the time does not depend on how much of a guess is right. Once there have been
    keys, a key is required for good: a file without keys does not open the service.

    Args:
        keys: keys with all rights; each is a tenant of its own.
        pepper: a secret input of every digest, at most 64 bytes; may be empty.
        variable: returns the value of an environment variable, for keys with ``env``.
        tenants: is told whose keys there are, now and later; None for a new one.

    Attributes:
        required: whether there are keys, or have been.
        tenants: as given.
    """

    __slots__ = ("_hasher", "_held", "_unlimited", "_variable", "required", "tenants")

    def __init__(
        self,
        keys: Iterable[str] = (),
        *,
        pepper: bytes = b"",
        variable: Variable = lambda _: None,
        tenants: Tenants | None = None,
    ) -> None:
        self._hasher = _hasher(pepper)
        self._variable = variable
        self._unlimited = {
            (digest := self.digest(key)): Principal(tenant=tenant_of(key), credential=digest) for key in keys
        }
        self._held = {digest: (digest, principal) for digest, principal in self._unlimited.items()}
        self.required = bool(self._held)
        self.tenants = tenants or Tenants()
        self._name_tenants()

    def digest(self, key: str) -> bytes:
        """Return the digest of a key, which may be any text."""
        hasher = self._hasher.copy()
        hasher.update(_bytes_of(key))
        return hasher.digest()

    def known(self, digest: bytes) -> Principal | None:
        """Return the key's holder; None where the key is unknown."""
        held, principal = self._held.get(digest, (b"", None))
        return principal if hmac.compare_digest(held, digest) else None

    async def find(self, digest: bytes) -> Principal | None:
        """Return the key's holder; None where the key is unknown."""
        return self.known(digest)

    def replace(self, specs: Mapping[str, KeySpec], plans: Mapping[str, Plan] = PLANS) -> KeyChanges:
        """Replace the file's keys; those of the settings stay. Returns what this changes for the holders of before.

        Args:
            specs: the keys, by their names.
            plans: the plans that they may name.

        Raises:
            ConfigurationError: a key is invalid, and nothing has changed; the message names it.
        """
        principals = dict(self._unlimited)
        names: dict[bytes, str] = dict.fromkeys(principals, "one of API_KEYS")
        faults: list[FieldError] = []
        for name, spec in specs.items():
            try:
                digest = self._digest_of(name, spec)
                plan = plan_of(f"keys.{name}.plan", spec.plan, plans, spec.limits)
            except ConfigurationError as error:
                faults += error.faults
                continue
            if digest in names:
                faults.append(FieldError(f"keys.{name}", f"it is the same key as {names[digest]}"))
            names[digest] = f"keys.{name}"
            if not spec.disabled:
                principals[digest] = msgspec.structs.replace(principal_of(name, spec, plan), credential=digest)
        if faults:
            raise ConfigurationError.of(faults)
        changes = _changes((principal for _, principal in self._held.values()), principals)
        self._held = {digest: (digest, principal) for digest, principal in principals.items()}
        self.required = self.required or bool(names)
        self._name_tenants()
        return changes

    def _name_tenants(self) -> None:
        """Name the tenants that exist; without keys that of the anonymous caller, unless tokens bring others."""
        names = {principal.tenant for _, principal in self._held.values()}
        anonymous = not (self.required or self.tenants.open)
        self.tenants.replace({ANONYMOUS.tenant} if anonymous else names)

    def _digest_of(self, name: str, spec: KeySpec) -> bytes:
        if bool(spec.hash) == bool(spec.env):
            raise ConfigurationError(f"keys.{name}: it needs either `hash` or `env`")
        if spec.hash:
            return bytes.fromhex(spec.hash)
        key = self._variable(spec.env)
        if not key:
            raise ConfigurationError(f"keys.{name}.env: the variable {spec.env} is not set")
        if len(key) < MIN_KEY:
            raise ConfigurationError(
                f"keys.{name}.env: {spec.env} has a key of less than {MIN_KEY} characters: {GUESSED}"
            )
        return self.digest(key)


def _changes(before: Iterable[Principal], after: Mapping[bytes, Principal]) -> KeyChanges:
    """Return what has changed for the holders of ``before``; one of another name or tenant is another holder."""
    revoked: list[Principal] = []
    changed: list[Principal] = []
    for old in before:
        new = after.get(old.credential)
        if new is None or (new.tenant, new.subject) != (old.tenant, old.subject):
            revoked.append(old)
        elif new != old:
            changed.append(new)
    return KeyChanges(tuple(revoked), tuple(changed))


def check_keys(specs: Mapping[str, KeySpec]) -> None:
    """Validate the names and budgets of keys, beyond their types.

    Raises:
        ConfigurationError: the message names the keys.
    """
    faults: list[FieldError] = []
    for name, spec in specs.items():
        if not KEY_NAME.fullmatch(name):
            faults.append(FieldError(f"keys.{name[:80]}", "a name is 1 to 64 letters, digits, `_` and `-`"))
        for index, budget in enumerate(spec.budgets):
            if budget.usd is None and budget.tokens is None:
                faults.append(FieldError(f"keys.{name}.budgets[{index}]", "it needs `usd` or `tokens`"))
    if faults:
        raise ConfigurationError.of(faults)


def plan_of(place: str, name: str, plans: Mapping[str, Plan], own: Limits = ()) -> CallerPlan | None:
    """Return the limits of a caller by the name of its plan, which may be empty; None for no limits.

    Raises:
        ConfigurationError: there is no such plan; the message begins with ``place``.
    """
    plan = plans.get(name) if name else None
    if name and plan is None:
        near = nearest(name, plans) or f"; there are: {', '.join(sorted(plans))}"
        raise ConfigurationError.of((FieldError(place, f"there is no such plan{near}"),))
    return caller_plan(plan, own)


def principal_of(name: str, spec: KeySpec, plan: CallerPlan | None = None) -> Principal:
    """Return the holder of the key that ``spec`` describes, with its limits."""
    return Principal(
        tenant=spec.tenant or tenant_of("key", name),
        subject=name,
        scopes=spec.scopes,
        models=spec.models,
        channels=spec.channels,
        account=Account(name, spec.budgets),
        plan=plan,
        default=spec.default,
        pass_fields=spec.pass_fields,
    )


def new_key() -> str:
    """Return a new random key."""
    return KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)


def digest_of(key: str, pepper: bytes = b"") -> bytes:
    """Return a key's digest; with a ``pepper`` it can't be computed without that."""
    hasher = _hasher(pepper)
    hasher.update(_bytes_of(key))
    return hasher.digest()


def _hasher(pepper: bytes) -> "hashlib.blake2b":
    return hashlib.blake2b(digest_size=DIGEST_BYTES, key=pepper, person=b"tidegate-key")


def _bytes_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def tenant_of(*parts: str) -> str:
    """Return the name of a derived tenant: the same in every process, never equal to a configured name, one-way."""
    text = _bytes_of("\0".join(parts))
    return PRIVATE + hashlib.blake2b(text, digest_size=TENANT_BYTES, person=b"tidegate-tenant").hexdigest()
