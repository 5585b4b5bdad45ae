"""Frames that a client may send over ``GET /ws``, decoded strictly."""

from collections.abc import Sequence
from typing import Annotated, Any, Final, get_args

import msgspec

from protocol.channels import NULL
from protocol.checks import MAX_NAME
from protocol.errors import FieldError, InvalidRequest, shortened
from protocol.events import Position
from protocol.hub import Mode
from protocol.json.hints import hint
from protocol.requests import SubmitBody

_SAFE_INTEGER: Final = 2**53 - 1  # every JSON parser keeps integers up to here exact

FrameId = (
    Annotated[int, msgspec.Meta(ge=-_SAFE_INTEGER, le=_SAFE_INTEGER)] | Annotated[str, msgspec.Meta(max_length=128)]
)


class _Frame(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="type", forbid_unknown_fields=True):
    """A frame from the client.

    Attributes:
        id: asks for an acknowledgement, which has the same id.
    """

    id: FrameId | None = None


class ResumePosition(Position, frozen=True, forbid_unknown_fields=True):
    """A position to resume after; its offset is not negative."""

    offset: Annotated[int, msgspec.Meta(ge=0, le=_SAFE_INTEGER)]


class _Named(_Frame, frozen=True):
    """A frame about either a request or a channel.

    Attributes:
        request_id: the request's id; empty for a channel.
        channel: the channel's name; empty for a request.
    """

    request_id: str = ""
    channel: str = ""

    def __post_init__(self) -> None:
        if bool(self.request_id) == bool(self.channel):
            raise ValueError("name one thing: either `requestId` or `channel`")


class AuthenticateFrame(_Frame, frozen=True, tag="authenticate"):
    """Authenticate: first on a socket that was opened without credentials, and again before the token expires.

    Attributes:
        token: an API key or a JWT.
        batch: as for ``subscribe``.
    """

    token: str
    batch: bool = False


class SubscribeFrame(_Named, frozen=True, tag="subscribe"):
    """Subscribe to a request or a channel.

    Attributes:
        after: the exclusive position to start after; without it, a request from its beginning, and of a channel the
            new publications.
        mode: see websocket.md, and for channels channels.md.
        batch: whether this socket accepts several frames in one message, one a line; it holds for the whole socket.
        presence: of a channel: whether to get the changes of presence.
        member: of a channel: join as a member with this info, which the other members see; without it the socket does
            not join.
        client: of a channel: the client's own name, which it keeps when it reconnects; empty for a name made up for
            this socket.
    """

    after: ResumePosition | None = None
    mode: Mode | None = None
    batch: bool = False
    presence: bool = False
    member: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    client: Annotated[str, msgspec.Meta(max_length=MAX_NAME)] = ""


class UnsubscribeFrame(_Named, frozen=True, tag="unsubscribe"):
    """Unsubscribe. The request or channel goes on; a member of the channel leaves it."""


class SubmitFrame(SubmitBody, frozen=True, kw_only=True, tag_field="type", tag="submit"):
    """Submit a request, with the body of ``POST /api/requests``, and subscribe to it.

    Attributes:
        id: asks for an acknowledgement, which has the same id.
        batch: as for ``subscribe``.
    """

    id: FrameId | None = None
    batch: bool = False


class CancelFrame(_Frame, frozen=True, tag="cancel"):
    """Cancel a request."""

    request_id: str


def _null() -> msgspec.Raw:
    return NULL


class PublishFrame(_Frame, frozen=True, tag="publish"):
    """Publish to a channel.

    Attributes:
        event: the publication's type.
        data: any JSON.
        key: idempotency key: sending the frame again publishes nothing.
    """

    channel: str
    event: str
    data: msgspec.Raw = msgspec.field(default_factory=_null)
    key: str = ""


class PresenceFrame(_Frame, frozen=True, tag="presence"):
    """Get the members of a channel."""

    channel: str


class AckFrame(_Named, frozen=True, kw_only=True, tag="ack"):
    """Acknowledge everything of a request or a channel up to ``offset``. It gets no answer."""

    offset: Annotated[int, msgspec.Meta(ge=0, le=_SAFE_INTEGER)]


class PingFrame(_Frame, frozen=True, tag="ping"):
    """Get a ``pong``."""


ClientFrame = (
    AuthenticateFrame
    | SubscribeFrame
    | UnsubscribeFrame
    | SubmitFrame
    | CancelFrame
    | PublishFrame
    | PresenceFrame
    | AckFrame
    | PingFrame
)
CLIENT_FRAMES: Final = get_args(ClientFrame)
FRAME_TYPES: Final = tuple(str(frame.__struct_config__.tag) for frame in CLIENT_FRAMES)


class FrameError(InvalidRequest):
    """The frame is not valid: correct it. The socket stays open. ``frame_id`` is None where it could not be read."""

    def __init__(
        self, detail: str, *, code: str = "", frame_id: int | str | None = None, errors: Sequence[FieldError] = ()
    ) -> None:
        self.frame_id = frame_id
        super().__init__(detail, code=code, errors=errors)


class _TypeAndId(msgspec.Struct):
    type: Any = None
    id: FrameId | None = None


_decoder: Final[msgspec.json.Decoder[ClientFrame]] = msgspec.json.Decoder(ClientFrame)
_decode_type_and_id: Final = msgspec.json.Decoder(_TypeAndId).decode


def decode(text: str | bytes) -> ClientFrame:
    """Decode a client's frame.

    Raises:
        FrameError: ``malformed_json``; or ``invalid_request``: an unknown type or field, a missing one, a wrong value.
    """
    try:
        return _decoder.decode(text)
    except msgspec.ValidationError as error:
        reason = str(error)
    except msgspec.DecodeError:
        raise FrameError("the frame is not one JSON object", code="malformed_json") from None
    except RecursionError:
        raise FrameError("the frame is nested too deeply") from None
    raise _refused(text, reason)


def _refused(text: str | bytes, reason: str) -> FrameError:
    message, _, path = shortened(reason).partition(" - at `")
    path = at = path.rstrip("`") or "$"
    if " field `" in message:
        path += "." + message.partition(" field `")[2].rstrip("`")
    frame_id = None
    try:
        frame = _decode_type_and_id(text)
    except msgspec.ValidationError:
        pass  # not an object, or an invalid id: the first error says so
    except (msgspec.DecodeError, RecursionError):
        return FrameError("the frame is not one JSON object", code="malformed_json")
    else:
        frame_id = frame.id
        if frame.type not in FRAME_TYPES:
            message = f"`type` must be one of {', '.join(FRAME_TYPES)}; got {str(frame.type)[:40]!r}"
            path = "$.type"
        else:
            message += hint(message, at, CLIENT_FRAMES[FRAME_TYPES.index(frame.type)])
    return FrameError(message, frame_id=frame_id, errors=(FieldError(path, message),))
