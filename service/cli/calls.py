"""The commands that make a few HTTP calls: ``status``, ``models``, ``usage`` and ``cancel``."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar
from urllib.parse import quote

import msgspec

from protocol.errors import AccessDenied, ConfigurationError, TidegateError, Unreachable
from protocol.ledger import Standing
from service.cli.options import FAILED, INTERRUPTED, TEMPORARY
from service.cli.output import NotesConsole, plain, report, table, write, write_json, write_json_error
from service.client.backoff import Backoff
from service.client.endpoint import Endpoint
from service.client.following import ENDED_STATES

CALL_PATIENCE: Final = 5.0  # seconds for which a call is retried
COMMAND_TIMEOUT: Final = 20.0  # seconds for all calls of a command

T = TypeVar("T")


class _Model(msgspec.Struct):
    id: str
    owned_by: str = ""


class _Models(msgspec.Struct):
    data: list[_Model]


class _Usage(msgspec.Struct):
    account: str | None = None
    windows: tuple[Standing, ...] = ()


class _Part(msgspec.Struct):
    status: str
    detail: str = ""


class _Health(msgspec.Struct):
    status: str
    checks: dict[str, _Part] = {}


class _State(msgspec.Struct, rename="camel"):
    request_id: str
    assistant_status: str


class ServiceCalls:
    """Calls of one service.

    Args:
        endpoint: the service.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def get(self, path: str, kind: type[T]) -> tuple[bytes, T]:
        """Return the body of a call, and what it says."""
        return self._decoded(await self._endpoint.call("GET", path, Backoff(CALL_PATIENCE)), kind)

    async def post(self, path: str, kind: type[T]) -> tuple[bytes, T]:
        """Return the body of a call, and what it says."""
        return self._decoded(await self._endpoint.call("POST", path, Backoff(CALL_PATIENCE)), kind)

    async def probe(self, path: str, kind: type[T]) -> tuple[int, bytes, T]:
        """Return the status of a call, its body, and what it says."""
        status, body = await self._endpoint.probe(path)
        return status, *self._decoded(body, kind)

    def _decoded(self, body: bytes, kind: type[T]) -> tuple[bytes, T]:
        try:
            return body, msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ConfigurationError(f"{self._endpoint.url} answers, but not as this service does") from None


def show_models(url: str, key: str, *, as_json: bool) -> int:
    """Print the models; returns the exit code."""

    async def show(calls: ServiceCalls) -> int:
        body, models = await calls.get("/v1/models", _Models)
        if as_json:
            write_json(msgspec.Raw(body))
        else:
            write(table(("MODEL", "PROVIDER"), [(model.id, model.owned_by) for model in models.data]))
        return 0

    return _run(url, key, show, as_json=as_json)


def show_usage(url: str, key: str, *, as_json: bool) -> int:
    """Print the spending of the key's account; returns the exit code."""

    async def show(calls: ServiceCalls) -> int:
        body, usage = await calls.get("/api/usage", _Usage)
        if as_json:
            write_json(msgspec.Raw(body))
        elif usage.account is None:
            write("This caller has no account: nothing is counted and nothing is limited.\n")
        else:
            write(f"account {usage.account}\n")
            head = ("PERIOD", "TOKENS", "OF", "USD", "OF", "RESERVED", "UNPRICED", "ENDS")
            write(table(head, map(_window, usage.windows)))
        return 0

    return _run(url, key, show, as_json=as_json)


def show_status(url: str, key: str, *, as_json: bool) -> int:
    """Print the health and whether the key is accepted; returns the exit code."""

    async def show(calls: ServiceCalls) -> int:
        status, body, health = await calls.probe("/api/health/ready", _Health)
        ready = status < 300  # noqa: PLR2004 - where HTTP's successes end
        refused: AccessDenied | None = None
        accepted: bool | None = None
        usage, account = b"null", ""
        try:
            usage, found = await calls.get("/api/usage", _Usage)
            account, accepted = _account(found, key), True
        except AccessDenied as error:
            refused, account, accepted = error, "refused" if key else "none was sent", False
        except TidegateError as error:
            account = f"unknown: {error.detail}"
        if as_json:
            answer = {"url": url, "ready": ready, "health": msgspec.Raw(body), "usage": msgspec.Raw(usage)}
            write_json(answer | {"keyAccepted": accepted})
        else:
            write(f"{url} is {'ready' if ready else 'not ready'} ({plain(health.status)}); key: {plain(account)}\n")
            parts = [(name, part.status, part.detail) for name, part in health.checks.items()]
            write(table(("PART", "STATE", "DETAIL"), parts) if parts else "")
        if refused is not None:
            report(refused, NotesConsole())
            return FAILED
        return 0 if ready else TEMPORARY

    return _run(url, key, show, as_json=as_json)


def cancel_request(url: str, key: str, request_id: str, *, as_json: bool) -> int:
    """Cancel a request and print its state; returns the exit code."""

    async def cancel(calls: ServiceCalls) -> int:
        path = f"/api/requests/{quote(request_id, safe='')}"
        _, before = await calls.get(path, _State)
        body, after = await calls.post(f"{path}/cancel", _State)
        if as_json:
            write_json(msgspec.Raw(body))
        elif before.assistant_status in ENDED_STATES:
            write(f"{after.request_id} had ended already: {after.assistant_status}\n")
        else:
            write(f"{after.request_id} {after.assistant_status}\n")
        return 0

    return _run(url, key, cancel, as_json=as_json)


def _run(url: str, key: str, command: Callable[[ServiceCalls], Awaitable[int]], *, as_json: bool) -> int:
    try:
        return asyncio.run(_connected(url, key, command))
    except KeyboardInterrupt:
        return INTERRUPTED
    except TidegateError as error:
        if as_json:
            write_json_error(error)
        return report(error, NotesConsole())


async def _connected(url: str, key: str, command: Callable[[ServiceCalls], Awaitable[int]]) -> int:
    endpoint = Endpoint(url, key)
    try:
        async with asyncio.timeout(COMMAND_TIMEOUT):
            return await command(ServiceCalls(endpoint))
    except TimeoutError:
        raise Unreachable(f"{url} does not answer within {COMMAND_TIMEOUT:g} s") from None
    finally:
        await endpoint.close()


def _account(usage: _Usage, key: str) -> str:
    if usage.account is not None:
        return f"accepted, account {usage.account}"
    return "accepted" if key else "not needed"


def _window(window: Standing) -> tuple[str, ...]:
    reserved = f"{_number(window.reserved_tokens)} / ${window.reserved_usd}" if window.reserved_tokens else "-"
    return (
        window.per,
        _number(window.tokens),
        "-" if window.max_tokens is None else _number(window.max_tokens),
        f"${window.usd}",
        "-" if window.max_usd is None else f"${window.max_usd}",
        reserved,
        _number(window.unpriced_tokens) if window.unpriced_tokens else "-",
        window.ends.strftime("%Y-%m-%d %H:%M UTC"),
    )


def _number(count: int) -> str:
    return f"{count:_}"
