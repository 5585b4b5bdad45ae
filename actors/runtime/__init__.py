"""The actor runtime: typed messages, supervised state, and nothing that outlives its system."""

from actors.runtime.actor import Actor
from actors.runtime.callbacks import Callback, PipedTask
from actors.runtime.clock import Clock, Handle
from actors.runtime.dead_letters import DeadLetter, DeadLetters
from actors.runtime.handlers import handles
from actors.runtime.keyed import Keyed
from actors.runtime.outstanding import Deferred
from actors.runtime.promise import Promise
from actors.runtime.ref import Ref
from actors.runtime.system import Child, System
from actors.runtime.timers import Timer

__all__ = [
    "Actor",
    "Callback",
    "Child",
    "Clock",
    "DeadLetter",
    "DeadLetters",
    "Deferred",
    "Handle",
    "Keyed",
    "PipedTask",
    "Promise",
    "Ref",
    "System",
    "Timer",
    "handles",
]
