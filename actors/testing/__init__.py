"""Test doubles that are public API: what stands in for the model's side."""

from actors.testing.embeddings import scripted_vector
from actors.testing.script import Call, Cut, End, Fault, Reply, Reset, Say, Send, Stall, Step, Wait, refuse, say
from actors.testing.upstream import Received, ScriptedUpstream

__all__ = [
    "Call",
    "Cut",
    "End",
    "Fault",
    "Received",
    "Reply",
    "Reset",
    "Say",
    "ScriptedUpstream",
    "Send",
    "Stall",
    "Step",
    "Wait",
    "refuse",
    "say",
    "scripted_vector",
]
