"""Grants: what is open by a credential ends with it, in steps that grow with what is open by that one alone."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from protocol.errors import AccessDenied
from protocol.identity import ChannelGrant, Principal
from service.auth.authenticator import Authenticator
from service.auth.grants import BATCH, SLACK, Grants
from service.auth.keys import KeyRing, digest_of
from service.config.routes_file import stamp_of
from service.config.routes_watcher import SETTLE, is_young


class Open:
    """Something that is open, and records what it is told."""

    def __init__(self, principal: Principal, *, fails: bool = False) -> None:
        self.principal = principal
        self.told: list[str] = []
        self._fails = fails

    def rights_ended(self, error: AccessDenied) -> None:
        """Record the end."""
        self.told.append(error.code)
        if self._fails:
            raise RuntimeError("it does not end")

    def rights_changed(self, principal: Principal) -> None:
        """Record the change."""
        self.principal = principal
        self.told.append("changed")


class Clock:
    """Unix seconds that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def held_by(grants: Grants, credential: bytes, count: int = 1, expires: float | None = None) -> list[Open]:
    """Return what is open by a credential."""
    opened = [Open(Principal(tenant="t", credential=credential, expires=expires)) for _ in range(count)]
    for one in opened:
        grants.enter(one.principal, one)
    return opened


async def test_only_what_is_open_by_the_credential_is_told() -> None:
    """What has left, and what is open by another one, is not touched."""
    grants = Grants()
    (ours, left), (others,) = held_by(grants, b"a", 2), held_by(grants, b"b")
    grants.leave(left.principal, left)
    assert (grants.end(b"a"), len(grants)) == (1, 1)
    assert (ours.told, left.told, others.told) == (["key_revoked"], [], [])
    grants.leave(ours.principal, ours)
    assert grants.end(b"a") == 0


async def test_nothing_is_held_of_what_has_no_credential() -> None:
    """The anonymous caller has no rights that could be revoked."""
    grants = Grants()
    held_by(grants, b"")
    assert (len(grants), grants.end(b"")) == (0, 0)


async def test_many_are_told_in_batches() -> None:
    """The first batch at once, the next ones in later turns of the loop; what moves on meanwhile is left alone."""
    grants = Grants()
    opened = held_by(grants, b"a", 2 * BATCH)
    assert grants.end(b"a") == 2 * BATCH
    assert sum(bool(one.told) for one in opened) == BATCH
    opened[-1].principal = Principal(tenant="t", credential=b"b")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [bool(one.told) for one in opened].count(False) == 1


async def test_one_that_fails_keeps_no_other_open() -> None:
    """It is logged."""
    grants = Grants()
    broken = Open(Principal(tenant="t", credential=b"a"), fails=True)
    grants.enter(broken.principal, broken)
    (after,) = held_by(grants, b"a")
    grants.end(b"a")
    assert (broken.told, after.told) == (["key_revoked"], ["key_revoked"])


async def test_a_change_reaches_all_and_ends_nothing_by_itself() -> None:
    """The holder decides what it may keep."""
    grants = Grants()
    (one,) = held_by(grants, b"a")
    narrower = Principal(tenant="t", credential=b"a", channels=(ChannelGrant("room"),))
    assert grants.change(narrower) == 1
    assert (one.told, one.principal, len(grants)) == (["changed"], narrower, 1)


async def test_tokens_share_one_timer_and_end_in_their_order() -> None:
    """Each ends at its own time; what has left by then is not told."""
    clock = Clock()
    grants = Grants(clock=clock)
    (late,), (soon,), (left,) = (held_by(grants, *one) for one in ((b"c", 1, 1300), (b"a", 1, 1100), (b"b", 1, 1200)))
    first = grants._timer
    grants.leave(left.principal, left)
    for now, told in ((1099.0, 0), (1100.0, 1), (1250.0, 1), (1300.0, 2)):
        clock.now = now
        grants.expire()
        assert len(soon.told) + len(late.told) + len(left.told) == told
    assert (soon.told, late.told) == (["token_expired"], ["token_expired"])
    assert first is not None
    assert grants._timer is None


async def test_expiries_of_what_has_left_are_bounded() -> None:
    """However many tokens come and go, the heap is made anew."""
    grants = Grants(clock=Clock())
    for number in range(20 * SLACK):
        (one,) = held_by(grants, b"%d" % number, 1, 10_000)
        grants.leave(one.principal, one)
        assert len(grants._expiries) <= SLACK + 3
    grants.close()


async def test_a_key_that_is_revoked_while_it_is_looked_up_is_refused() -> None:
    """The look-up is repeated where rights have changed meanwhile."""
    found: list[Principal | None] = [Principal(tenant="t"), None]

    class Slow(KeyRing):
        async def find(self, digest: bytes) -> Principal | None:
            first = len(found) == 2
            answer = found.pop(0)
            if first:
                auth.revoke(Principal(tenant="t", credential=digest))
            return answer

    auth = Authenticator(Slow(["another-key"]))
    with pytest.raises(AccessDenied):
        await auth.authenticate("key")
    assert found == []
    found[:] = [Principal(tenant="t")]
    assert (await auth.authenticate("key")).credential == digest_of("key")


def test_a_file_is_left_alone_while_it_is_written(tmp_path: Path) -> None:
    """Half a file would revoke the keys of the other half. A time in the future counts as long ago."""
    file = tmp_path / "tidegate.toml"
    assert not is_young(stamp_of(file))
    file.write_text("", encoding="utf-8")
    now = time.time()
    for age, young in ((0.0, True), (SETTLE + 1, False), (-60.0, False)):
        os.utime(file, (now - age, now - age))
        assert is_young(stamp_of(file)) == young
