"""Public test doubles: a scripted upstream in place of a model provider."""

from actors.testing.embeddings import scripted_vector
from actors.testing.script import (
    Call,
    Cut,
    Data,
    End,
    Fault,
    Ping,
    Reply,
    Reset,
    Say,
    Send,
    Stall,
    Step,
    Think,
    Wait,
    refuse,
    say,
)
from actors.testing.upstream import Received, ScriptedUpstream

__all__ = [
    "Call",
    "Cut",
    "Data",
    "End",
    "Fault",
    "Ping",
    "Received",
    "Reply",
    "Reset",
    "Say",
    "ScriptedUpstream",
    "Send",
    "Stall",
    "Step",
    "Think",
    "Wait",
    "refuse",
    "say",
    "scripted_vector",
]
