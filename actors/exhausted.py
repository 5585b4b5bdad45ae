"""Failures for want of this machine's own resources: descriptors, memory for sockets, threads.

They say nothing of the upstream, so they are ``overloaded`` and no ``ProviderError``: they count against no breaker and
no provider's health.
"""

import errno
import logging
import os
import socket
import ssl
from typing import Final

from protocol.errors import Overloaded
from protocol.line_limit import LineLimit

ERRNOS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
NO_THREAD: Final = "can't start new thread"  # the text of CPython's RuntimeError
RETRY_AFTER: Final = 1.0  # seconds
MAX_CAUSES: Final = 16  # causes of one failure that are looked at
DETAIL: Final = "The service has no descriptor, thread or memory left for another call"

_lines: Final = LineLimit()
_log = logging.getLogger("tidegate.wire")


def is_exhausted(error: BaseException) -> bool:
    """Whether ``error``, or a cause of it, is a want of this machine's resources.

    Resolvers and TLS do not say why they could not open a file. Their failures count where no descriptor is left.
    """
    causes: list[BaseException] = [error]
    for cause in causes:
        if _says_so(cause):
            return True
        for further in (cause.__cause__, cause.__context__):
            if further is not None and further not in causes and len(causes) < MAX_CAUSES:
                causes.append(further)
    return any(map(_is_unclear, causes)) and not _descriptor_left()


def exhausted(error: BaseException) -> Overloaded:
    """Return the failure that a caller gets for ``error``, which is logged: a line in ``LINE_INTERVAL`` seconds."""
    omitted = _lines.take()
    if omitted is not None:
        fields = {"reason": f"{type(error).__name__}: {error}", "omitted": omitted}
        _log.warning("resources_exhausted", extra={"fields": fields})
    return Overloaded(DETAIL, retry_after=RETRY_AFTER)


def check_descriptor_left() -> None:
    """Check that a file can be opened.

    Raises:
        OSError: no descriptor is left.
    """
    os.close(os.open(os.devnull, os.O_RDONLY))


def _says_so(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in ERRNOS and not isinstance(error, socket.gaierror)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and NO_THREAD in str(error))


def _is_unclear(error: BaseException) -> bool:
    unclear = isinstance(error, socket.gaierror | ssl.SSLError)
    return unclear or (isinstance(error, OSError) and error.errno is None and not isinstance(error, TimeoutError))


def _descriptor_left() -> bool:
    try:
        check_descriptor_left()
    except OSError:
        return False
    return True
