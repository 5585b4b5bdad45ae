"""Opens the context of a call: its ids, and when it was accepted."""

import os
import re
import time
from typing import Final

from aiohttp import web

from protocol.secret_text import hide_keys
from service.context import ACCEPTED, CALL, CURRENT_CALL, CallContext
from service.telemetry.spans import remote_parent, wanted_trace_id

VALID_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+/=@-]{0,127}")
TRACE_ID_BYTES: Final = 16


def open_call(request: web.Request) -> CallContext:
    """Make the context of a call, and bind it to the request and to the current task.

    The request id is the caller's where it is 1 to 128 allowed characters and does not look like a key. The trace id is
    that of ``traceparent``, or ``x-trace-id``, which may be a name of the caller's own, or random.
    """
    name = request.headers.get("x-request-id", "")
    if name and not (VALID_REQUEST_ID.fullmatch(name) and hide_keys(name) == name):
        name = ""
    parent = remote_parent(request)
    if parent is None:
        trace_id = wanted_trace_id(request) or os.urandom(TRACE_ID_BYTES).hex()
    else:
        trace_id = f"{parent.trace_id:032x}"
    call = CallContext(name, trace_id, request.get(ACCEPTED) or time.perf_counter(), parent)
    request[CALL] = call
    CURRENT_CALL.set(call)
    return call


def route_of(request: web.Request) -> str:
    """Return the template of the matched route (``/api/requests/{id}``); empty for none."""
    resource = request.match_info.route.resource
    return "" if resource is None else resource.canonical
