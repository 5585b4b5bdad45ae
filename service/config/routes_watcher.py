"""The watcher of the routes' file: looks at it every second, and puts in force what has changed."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

import structlog

from actors.requests.router_messages import ForgetModels
from actors.runtime import Actor, Ref, handles
from protocol.errors import ConfigurationError, FieldError
from protocol.identity import Principal
from protocol.limits import Plan
from protocol.message import Message
from protocol.requests import CancelOwned
from protocol.routes import Routes, SetRoutes
from service.auth.keys import KeyChanges, KeySpec
from service.auth.token_config import TokenPlans, token_plans
from service.config.routes_file import RoutesFile, Stamp, read_routes, stamp_of

CHECK_INTERVAL: Final = 1.0  # seconds
SETTLE: Final = 0.25  # seconds for which a changed file is left alone, so that it is not read while it is written
ASK_TIMEOUT: Final = 1.0  # seconds

_log = structlog.get_logger("service")


class KeyHolder(Protocol):
    """Holds the file's keys."""

    def replace(self, specs: Mapping[str, KeySpec], plans: Mapping[str, Plan]) -> KeyChanges:
        """Replace the file's keys, which name ``plans``; returns what this changes for the holders of before.

        Raises:
            ConfigurationError: a key is invalid, and nothing has changed.
        """


class RoutesHolder(Protocol):
    """Holds what callers' calls may send upstream by a route."""

    def replace(self, routes: Routes) -> None:
        """Take other routes."""


class RightsHolder(Protocol):
    """Holds what is open by keys and tokens: ``service.auth.authenticator.Authenticator``."""

    def revoke(self, principal: Principal) -> int:
        """End all that is open by the key of ``principal``; return how much that is."""

    def change(self, principal: Principal) -> int:
        """Let all that is open by a key have the rights of ``principal``, and no others; return how much that is."""

    def refresh(self) -> None:
        """Fetch in the background what tells that a token is not valid any more, where it is old."""


def is_young(stamp: Stamp) -> bool:
    """Whether a file was written so recently that more may follow."""
    return stamp is not None and 0 <= time.time() - stamp[0] / 1e9 < SETTLE


class CheckFile(Message[None], frozen=True):
    """Check whether the file has changed."""


class ReadFile(Message[None], frozen=True):
    """Read a file that was young when it was checked."""


class RoutesAccepted(Message[None], frozen=True):
    """The first ``count`` actors have accepted ``routes``."""

    routes: Routes
    count: int


class RoutesRefused(Message[None], frozen=True):
    """An actor has refused ``routes``."""

    routes: Routes
    error: Exception


class GetRejected(Message[tuple[FieldError, ...]], frozen=True):
    """Get what is wrong in the file, where its routes are not in force; empty where they are."""


class RoutesWatcher(Actor[CheckFile | ReadFile | RoutesAccepted | RoutesRefused | GetRejected]):
    """Applies the file when it changes. A bad file is reported once, and the routes in force stay.

    The file is looked at and read in a thread. One that was written a moment ago is read a moment later: a program that
    writes it in place may not be done, and half a file would revoke the keys of the other half.

    Keys are applied as soon as the file has been read, even where its routes are refused later. All that is open by a
    removed key ends; of what is open by a changed one, what its new rights do not cover. Running requests of a removed
    key finish or are cancelled, as its ``on_revoke`` says: in the new file, or in the old one where it is not there.

    Routes are sent to the actors one after the other, and again at every check, so that a restarted actor gets them
    again; equal routes change nothing. Where an actor refuses, those before it get the routes in force again with the
    next check.

    Args:
        file: the file as read at the start; its keys are applied already.
        targets: the actors that take the routes.
        router: caches which models exist, and has the running requests.
        keys: holds the keys.
        rights: holds what is open by them.
        limit_tokens: limits the holders of tokens by these plans from now on; None where there are no tokens.
        passing: takes the routes when they are in force; None for nobody.
        check: finds all that the actors would refuse in a file, with the places; None to leave it to them.
    """

    def __init__(
        self,
        file: RoutesFile,
        *,
        targets: Sequence[Ref[SetRoutes]],
        router: Ref[ForgetModels | CancelOwned],
        keys: KeyHolder,
        rights: RightsHolder,
        limit_tokens: Callable[[TokenPlans], object] | None = None,
        passing: RoutesHolder | None = None,
        check: Callable[[RoutesFile], Iterable[FieldError]] | None = None,
    ) -> None:
        self._path = file.path
        self._stamp = file.stamp
        self._wanted = file.routes
        self._in_force = file.routes
        self._targets = tuple(targets)
        self._router = router
        self._keys = keys
        self._rights = rights
        self._limit_tokens = limit_tokens
        self._passing = passing
        self._held = file.keys
        self._check = check
        self._rejected: tuple[FieldError, ...] = ()

    async def started(self) -> None:
        """Start the regular check."""
        self.schedule(CHECK_INTERVAL, CheckFile())

    @handles(CheckFile)
    async def check(self, _message: CheckFile) -> None:
        """Read the file if it has changed, and send its routes to the actors."""
        self.schedule(CHECK_INTERVAL, CheckFile())
        self._rights.refresh()
        stamp = await asyncio.to_thread(stamp_of, self._path)
        if stamp != self._stamp:
            if is_young(stamp):
                self.schedule(SETTLE, ReadFile())
            else:
                await self._read()
        self._offer(self._wanted, 0)

    @handles(ReadFile)
    async def read(self, _message: ReadFile) -> None:
        """Read the file, and send its routes to the actors."""
        await self._read()
        self._offer(self._wanted, 0)

    @handles(RoutesAccepted)
    async def accepted(self, message: RoutesAccepted) -> None:
        """Send the routes to the next actor; after the last one, clear the router's cache of models."""
        if message.count < len(self._targets):
            self._offer(message.routes, message.count)
            return
        if message.routes == self._in_force:
            return
        self._in_force = message.routes
        if self._passing is not None:
            self._passing.replace(message.routes)
        _log.info("routes_changed", path=str(self._path), routes=sorted(message.routes.routes))
        await self._router.tell(ForgetModels())

    @handles(RoutesRefused)
    async def refused(self, message: RoutesRefused) -> None:
        """Report routes that name something that does not exist; a busy actor gets them again at the next check."""
        if isinstance(message.error, ConfigurationError) and message.routes == self._wanted:
            self._wanted = self._in_force
            self._report(message.error)

    @handles(GetRejected)
    async def rejected(self, _message: GetRejected) -> tuple[FieldError, ...]:
        """Return what is wrong in the file."""
        return self._rejected

    def _offer(self, routes: Routes, place: int) -> None:
        self.ask_then(
            self._targets[place],
            SetRoutes(routes),
            timeout=ASK_TIMEOUT,
            ok=lambda _: RoutesAccepted(routes, place + 1),
            err=lambda error: RoutesRefused(routes, error),
        )

    async def _read(self) -> None:
        """Read the file, put its keys in force, and keep its routes for the actors."""
        file = await asyncio.to_thread(read_routes, self._path)
        self._stamp = file.stamp
        faults = file.faults
        if not faults:
            try:
                plans = token_plans(file.jwt, file.plans)
                changes = self._keys.replace(file.keys, file.plans)
            except ConfigurationError as error:
                faults = file.located(error.faults)
            else:
                await self._apply(changes, file.keys)
                if self._limit_tokens is not None:
                    self._limit_tokens(plans)
        faults = (*faults, *(self._check(file) if self._check else ()))
        if faults:
            self._wanted = self._in_force
            self._report(ConfigurationError.of(tuple(dict.fromkeys(faults))))
        else:
            self._wanted = file.routes
            self._rejected = ()

    async def _apply(self, changes: KeyChanges, keys: dict[str, KeySpec]) -> None:
        """End what the keys do not cover any more, before anything else."""
        before, self._held = self._held, keys
        ended = sum(map(self._rights.revoke, changes.revoked))
        changed = sum(map(self._rights.change, changes.changed))
        if keys != before:
            _log.info("keys_changed", path=str(self._path), keys=sorted(keys), ended=ended, changed=changed)
        for principal in changes.revoked:
            spec = keys.get(principal.subject) or before.get(principal.subject)
            if spec is not None and spec.on_revoke == "cancel":
                await self._router.tell(CancelOwned(principal.credential))

    def _report(self, error: ConfigurationError) -> None:
        self._rejected = error.faults
        _log.warning("routes_rejected", path=str(self._path), reason=error.detail, kept=sorted(self._in_force.routes))
