"""API keys: what is stored of them, and their permissions."""

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from protocol.budgets import Account, Budget
from protocol.errors import ConfigurationError
from protocol.identity import ANONYMOUS, ChannelGrant, Principal
from service.auth.keys import KEY_PREFIX, KeyChanges, KeyRing, KeySpec, digest_of, new_key, tenant_of
from service.config.routes_file import parse_keys

KK, LL = "k" * 16, "l" * 16


def ring(specs: dict[str, KeySpec], *keys: str, **variables: str) -> KeyRing:
    """Return a key ring with these specs."""
    held = KeyRing(keys, variable=variables.get)
    held.replace(specs)
    return held


def holder(held: KeyRing, key: str) -> Principal | None:
    """Return who holds ``key``."""
    return held.known(held.digest(key))


def test_a_key_cannot_be_guessed() -> None:
    """256 random bits, with a prefix that secret scanners find."""
    key = new_key()
    assert key.startswith(KEY_PREFIX)
    assert len(key) == len(KEY_PREFIX) + 43
    assert key != new_key()


@pytest.mark.parametrize("key", ["\ud800", "tg_\udcff", "\x00", "", "x" * 100_000])
def test_any_text_has_a_digest(key: str) -> None:
    """A key that nobody can have is an unknown key, and no error."""
    ring = KeyRing(["one-of-the-settings-keys"])
    assert ring.known(ring.digest(key)) is None


def test_a_key_opens_what_its_description_says() -> None:
    """A key has the rights of its spec, which holds only its digest."""
    spec = KeySpec(
        hash=digest_of(KK).hex(),
        tenant="acme",
        scopes=("inference",),
        models=("fast", "gpt-*"),
        channels=(ChannelGrant("room:*", ("subscribe",)),),
        budgets=(Budget(per="day", usd=Decimal(5)),),
        default="fast",
    )
    assert holder(ring({"web": spec}), KK) == Principal(
        tenant="acme",
        subject="web",
        scopes=("inference",),
        models=("fast", "gpt-*"),
        channels=(ChannelGrant("room:*", ("subscribe",)),),
        account=Account("web", (Budget(per="day", usd=Decimal(5)),)),
        default="fast",
        credential=digest_of(KK),
    )


def test_a_key_may_be_in_the_environment() -> None:
    """The digest of a key in the environment is computed here; the defaults are an application's rights."""
    found = holder(ring({"web": KeySpec(env="WEB_KEY")}, WEB_KEY=KK), KK)
    assert found is not None
    assert (found.scopes, found.models, found.account) == (("inference", "channels"), ("*",), Account("web"))


def test_tenants_that_are_not_named_are_nobody_elses() -> None:
    """A derived tenant differs from that of a key in the settings, and from any name that can be configured."""
    held = ring({"web": KeySpec(env="K"), "app": KeySpec(env="L")}, "one", "web", K=KK, L=LL)
    tenants = {found.tenant for key in (KK, LL, "one", "web") if (found := holder(held, key))}
    assert len(tenants) == 4
    for tenant in tenants:
        with pytest.raises(ConfigurationError, match=r"keys\.x\.tenant"):
            parse_keys({"keys": {"x": {"env": "K", "tenant": tenant}}})


def test_a_new_key_of_the_same_name_is_the_same_tenant() -> None:
    """A tenant stays the same when its key changes."""
    before, after = (
        holder(ring({"web": KeySpec(env="K")}, K=key), key) for key in ("the-old-key-of-web", "the-new-key-of-web")
    )
    assert before is not None
    assert after is not None
    assert (before.tenant, before.subject) == (after.tenant, after.subject)
    assert before.credential != after.credential


def test_a_pepper_makes_digests_of_its_own() -> None:
    """With another pepper a digest does not match."""
    held = KeyRing(pepper=b"pepper")
    held.replace({"web": KeySpec(hash=digest_of(KK, b"pepper").hex()), "app": KeySpec(hash=digest_of(LL).hex())})
    assert holder(held, KK) is not None
    assert holder(held, LL) is None


def test_keys_are_replaced_as_a_whole() -> None:
    """Removed keys are refused at once; those of the settings stay."""
    held = ring({"web": KeySpec(env="K")}, "one", K=KK, L=LL)
    web = holder(held, KK)
    assert web is not None
    assert held.replace({"app": KeySpec(env="L")}) == KeyChanges(revoked=(web,))
    assert holder(held, KK) is None
    assert None not in (holder(held, LL), holder(held, "one"))
    assert held.replace({"app": KeySpec(env="L", on_revoke="cancel")}) == KeyChanges()
    changes = held.replace({"app": KeySpec(env="L", models=("m",))})
    assert (changes.revoked, list(changes.changed)) == ((), [holder(held, LL)])
    assert [gone.subject for gone in held.replace({"app": KeySpec(env="L", disabled=True)}).revoked] == ["app"]


@pytest.mark.parametrize("spec", [{"web2": KeySpec(env="K")}, {"web": KeySpec(env="K", tenant="t")}])
def test_a_key_of_another_name_or_tenant_is_another_holder_s(spec: dict[str, KeySpec]) -> None:
    """What is open by it is the holder's of before: it ends."""
    held = ring({"web": KeySpec(env="K")}, K=KK)
    web = holder(held, KK)
    assert web is not None
    assert held.replace(spec) == KeyChanges(revoked=(web,))


def test_what_once_needed_a_key_needs_one_always() -> None:
    """Without its last key the service refuses all callers, and does not become open."""
    held = KeyRing(variable={"K": KK}.get)
    needed = [held.required]
    for specs in ({"web": KeySpec(env="K", disabled=True)}, {}):
        held.replace(specs)
        needed.append(held.required)
        assert holder(held, KK) is None
    assert needed == [False, True, True]


def test_a_mistake_changes_nothing() -> None:
    """The previous keys stay valid."""
    held = ring({"web": KeySpec(env="K")}, K=KK)
    with pytest.raises(ConfigurationError, match=r"keys\.app\.env: the variable NONE is not set"):
        held.replace({"new": KeySpec(env="K"), "app": KeySpec(env="NONE")})
    assert holder(held, KK) is not None


def test_a_key_is_described_once() -> None:
    """Two specs of the same key are refused."""
    with pytest.raises(ConfigurationError, match=r"keys\.b: it is the same key as keys\.a"):
        ring({"a": KeySpec(env="K"), "b": KeySpec(hash=digest_of(KK).hex())}, K=KK)
    with pytest.raises(ConfigurationError, match="the same key as one of API_KEYS"):
        ring({"a": KeySpec(env="K")}, KK, K=KK)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({}, "keys.web: it needs either `hash` or `env`"),
        ({"env": "SHORT"}, "keys.web.env: SHORT has a key of less than 16 characters"),
        ({"hash": "0" * 64, "env": "K"}, "keys.web: it needs either"),
        ({"hash": "tg_secret"}, "keys.web.hash: should be the 64 hex digits"),
        ({"env": "K", "key": "secret"}, "keys.web.key: there is no such key"),
        ({"env": "K", "tenant": ""}, "keys.web.tenant: should be 1 to 128 letters"),
        ({"env": "K", "tenant": "~0123456789abcdef"}, "keys.web.tenant: should be 1 to 128 letters"),
        ({"env": "K", "scopes": ["root"]}, "keys.web.scopes[0]: should be 'inference', 'channels' or 'admin'"),
        ({"env": "K", "models": "fast"}, "keys.web.models: should be a list, got a text"),
        ({"env": "K", "models": [""]}, "keys.web.models[0]: should be a text of length >= 1"),
        (
            {"env": "K", "channels": [{"pattern": "a", "rights": ["write"]}]},
            "keys.web.channels[0].rights[0]: should be 'subscribe', ",
        ),
        ({"env": "K", "channels": [{"name": "a"}]}, "keys.web.channels[0].name: there is no such key"),
        ({"env": "K", "budgets": [{"per": "week", "usd": 1}]}, "keys.web.budgets[0].per: should be 'day' or 'month'"),
        ({"env": "K", "budgets": [{"per": "day"}]}, "keys.web.budgets[0]: it needs `usd` or `tokens`"),
        ({"env": "K", "budgets": [{"per": "day", "usd": -1}]}, "keys.web.budgets[0]"),
    ],
)
def test_a_mistake_names_its_key(table: dict[str, Any], says: str) -> None:
    """The message names the key and the table, and what is allowed; never a secret."""
    with pytest.raises(ConfigurationError) as caught:
        ring(parse_keys({"keys": {"web": table}}), K=KK, SHORT="secret")
    assert says in caught.value.detail
    assert "secret" not in caught.value.detail


def test_the_pages_example_is_one(root: Path) -> None:
    """The documentation's example is valid."""
    page = (root / "docs" / "auth.md").read_text(encoding="utf-8")
    keys = parse_keys(tomllib.loads(page.partition("```toml\n")[2].partition("```")[0]))
    assert list(keys) == ["web", "dashboard"]
    assert ring(keys, DASHBOARD_KEY=KK).required


def test_a_name_is_a_bare_key_of_toml() -> None:
    """A key's name is limited: it appears in logs and in the ledger."""
    with pytest.raises(ConfigurationError, match=r"keys\.a b: a name is"):
        parse_keys({"keys": {"a b": {"env": "K"}}})


def test_money_is_exact() -> None:
    """A price in the file is an exact decimal, though TOML has floats."""
    (spec,) = parse_keys({"keys": {"web": {"env": "K", "budgets": [{"per": "day", "usd": 0.1}]}}}).values()
    assert spec.budgets[0].usd == Decimal("0.1")


def test_keys_are_not_kept() -> None:
    """No stored value contains a key."""
    held = ring({"web": KeySpec(env="K")}, "settings-key", K="the-key-of-the-file")
    said = repr((held._held, held._unlimited))
    assert "settings-key" not in said
    assert "the-key-of-the-file" not in said
    assert "one" not in tenant_of("one")


@pytest.mark.parametrize(
    ("models", "model", "may"),
    [
        (("*",), "anything", True),
        (("gpt-*",), "gpt-5", True),
        (("gpt-*",), "openai/gpt-5", False),
        (("gpt-*",), "GPT-5", False),
        (("a", "openai/*"), "openai/gpt-5", True),
        ((), "a", False),
    ],
)
def test_models_are_allowed_by_the_names_by_which_they_are_asked(
    models: tuple[str, ...], model: str, may: bool
) -> None:
    """Patterns are case-sensitive; `*` matches any characters."""
    assert msgspec.structs.replace(ANONYMOUS, models=models).may_ask(model) is may
