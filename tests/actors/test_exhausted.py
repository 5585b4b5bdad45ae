"""Failures for want of this machine's own resources."""

import errno
import socket
import ssl

import pytest

from actors import exhausted
from actors.exhausted import is_exhausted
from actors.wire import connector
from actors.wire.connector import Connector
from actors.wire.pool import ConnectionPool
from actors.wire.url import Origin
from protocol.errors import Overloaded, ProviderError
from protocol.line_limit import LineLimit

ORIGIN = Origin("127.0.0.1", 9, tls=False)


def caused(error: Exception, cause: Exception) -> Exception:
    """Return ``error`` with a cause."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.ENFILE, "Too many open files in system"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        OSError(errno.ENOBUFS, "No buffer space available"),
        RuntimeError("can't start new thread"),
        MemoryError(),
        caused(ImportError("a package"), OSError(errno.EMFILE, "Too many open files")),
    ],
)
def test_a_want_of_resources_is_ours(error: Exception) -> None:
    """Descriptors, memory and threads, also as the cause of another failure."""
    assert is_exhausted(error)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
        TimeoutError(),
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        ssl.SSLError(1, "certificate verify failed"),
        RuntimeError("unable to perform operation"),
        ValueError("a port"),
    ],
)
def test_other_failures_are_not(error: Exception) -> None:
    """While descriptors are left."""
    assert not is_exhausted(error)


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), True),
        (ssl.SSLError(1, "certificate verify failed"), True),
        (OSError("Multiple exceptions: [Errno 24] …, [Errno 111] …"), True),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), False),
    ],
)
def test_unclear_failures_are_ours_without_a_descriptor(
    error: Exception, ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolver does not say that it could not open its files."""

    def none_left() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(exhausted, "check_descriptor_left", none_left)
    assert is_exhausted(error) is ours


def test_causes_that_go_in_a_circle_end() -> None:
    """Only so many causes are looked at."""
    error = ValueError()
    error.__cause__ = caused(ValueError(), error)
    assert not is_exhausted(error)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.EMFILE, "Too many open files"), Overloaded),
        (RuntimeError("can't start new thread"), Overloaded),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), ProviderError),
        (RuntimeError("a bug"), RuntimeError),
    ],
)
async def test_a_connection_that_we_can_not_make_is_not_the_provider_s_fault(
    error: Exception, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is ``overloaded``, and the pool makes one as soon as it can."""

    async def fails(*_: object, **__: object) -> None:
        raise error

    pool = ConnectionPool(Connector(), limit=1)
    with monkeypatch.context() as patched:
        patched.setattr(connector, "start_connection", fails)
        with pytest.raises(kind):
            await pool.acquire(ORIGIN, 5.0)
    assert pool.busy == 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = await pool.acquire(Origin("127.0.0.1", server.getsockname()[1], tls=False), 5.0)
        pool.discard(connection)
        await pool.close()


async def test_certificates_that_could_not_be_read_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TLS context that was made without a descriptor is not kept: OpenSSL has skipped the files."""
    made: list[ssl.SSLContext] = []

    def context() -> ssl.SSLContext:
        made.append(ssl.create_default_context())
        return made[-1]

    def none_left() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    fresh = Connector(context)
    with monkeypatch.context() as patched:
        patched.setattr(connector, "check_descriptor_left", none_left)
        with pytest.raises(OSError, match="Too many open files"):
            await fresh.connect(Origin("127.0.0.1", 9, tls=True), lambda _: None)
    with pytest.raises(ConnectionRefusedError):
        await fresh.connect(Origin("127.0.0.1", 9, tls=True), lambda _: None)
    assert len(made) == 2


def test_lines_are_bounded() -> None:
    """One in each interval; the next one says how many were left out."""
    now = [0.0]
    limit = LineLimit(10.0, lambda: now[0])
    assert [limit.take() for _ in range(4)] == [0, None, None, None]
    now[0] = 10.0
    assert [limit.take(), limit.take()] == [3, None]
