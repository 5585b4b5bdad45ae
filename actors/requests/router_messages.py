"""The messages of the request router: those that its steps send to it, and all that it handles."""

from actors.requests.record import RequestRecord
from actors.runtime import Promise, Ref
from protocol.cache import CacheDelete, CachedLog, CacheGet, CachePut
from protocol.message import Message
from protocol.requests import (
    AwaitRequests,
    CancelOwned,
    CancelRequest,
    CountRequests,
    DeleteRequest,
    EndRequests,
    GetRequest,
    Submit,
    Submitted,
)

CacheMessage = CacheGet | CachePut | CacheDelete
Decided = Submitted | Promise[Submitted]  # at once, or later


class InputDigested(Message[None], frozen=True):
    """A large submission has its digests."""

    submit: Submit
    reply: Promise[Submitted]


class ModelResolved(Message[None], frozen=True):
    """The gateway serves the submission's model; the next step is ``cache``, if there is one."""

    submit: Submit
    digest: bytes
    cache: Ref[CacheMessage] | None
    reply: Promise[Submitted]


class SubmitRefused(Message[None], frozen=True):
    """The gateway does not serve the submission's model, or has not answered."""

    error: Exception
    reply: Promise[Submitted]


class CacheAnswered(Message[None], frozen=True):
    """The cache's answer to a submission; None for a miss."""

    submit: Submit
    digest: bytes
    cached: CachedLog | None
    reply: Promise[Submitted]


class Uncached(Message[None], frozen=True):
    """The cache holds nothing of a deleted request any more, or has failed with ``error``."""

    record: RequestRecord
    reply: Promise[None]
    error: Exception | None = None


class RequestTimedOut(Message[None], frozen=True):
    """The timeout of a request that joined another one's run is over."""

    request_id: str
    tenant: str


class GraceExpired(Message[None], frozen=True):
    """A request has had no follower for the grace period."""

    request_id: str
    tenant: str


class ForgetModels(Message[None], frozen=True):
    """The gateway's models have changed: ask it again for each name."""


class SweepRequests(Message[None], frozen=True):
    """Drop the ended requests whose time is over."""


RouterMessage = (
    Submit
    | GetRequest
    | CancelRequest
    | CancelOwned
    | DeleteRequest
    | CountRequests
    | AwaitRequests
    | EndRequests
    | ForgetModels
    | InputDigested
    | ModelResolved
    | SubmitRefused
    | CacheAnswered
    | Uncached
    | RequestTimedOut
    | GraceExpired
    | SweepRequests
)
