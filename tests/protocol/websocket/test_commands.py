import pytest

from protocol.websocket.commands import (
    AckFrame,
    CancelFrame,
    FrameError,
    PingFrame,
    SubmitFrame,
    SubscribeFrame,
    UnsubscribeFrame,
    decode,
)


def refused(text: str | bytes) -> FrameError:
    """Return why a frame is refused."""
    with pytest.raises(FrameError) as raised:
        decode(text)
    return raised.value


def test_the_plain_frames_decode() -> None:
    """A frame needs only a type and a request."""
    assert decode('{"type":"subscribe","requestId":"req_1"}') == SubscribeFrame(request_id="req_1")
    assert decode('{"type":"unsubscribe","requestId":"req_1"}') == UnsubscribeFrame(request_id="req_1")
    assert decode('{"type":"cancel","id":6,"requestId":"req_1"}') == CancelFrame(id=6, request_id="req_1")
    assert decode('{"type":"ack","requestId":"req_1","offset":57}') == AckFrame(request_id="req_1", offset=57)
    assert decode(b'{"type":"ping"}') == PingFrame()


def test_a_subscription_has_a_position_and_a_mode() -> None:
    """``after`` has an epoch and an offset."""
    frame = decode('{"type":"subscribe","id":"a","requestId":"req_1","after":{"epoch":"k3","offset":0},"mode":"live"}')
    assert isinstance(frame, SubscribeFrame)
    assert frame.after is not None
    assert (frame.id, frame.after.epoch, frame.after.offset, frame.mode) == ("a", "k3", 0, "live")


def test_a_submit_has_the_fields_of_the_http_body() -> None:
    """``submit`` has the body of ``POST /api/requests``."""
    frame = decode('{"type":"submit","id":1,"messages":[{"role":"user","content":"hi"}],"options":{"seed":7}}')
    assert isinstance(frame, SubmitFrame)
    assert (frame.id, frame.messages[0].content, frame.options.seed) == (1, "hi", 7)


@pytest.mark.parametrize(
    ("text", "code", "frame_id", "path"),
    [
        ("{", "malformed_json", None, None),
        ("", "malformed_json", None, None),
        (b"\xff\xfe", "malformed_json", None, None),
        ('{"type":"publish","id":3', "malformed_json", None, None),
        ("[]", "invalid_request", None, "$"),
        ('{"type":"publish","id":5,"channel":"room:7"}', "invalid_request", 5, "$.event"),
        ('{"id":4}', "invalid_request", 4, "$.type"),
        ('{"type":3,"id":"x"}', "invalid_request", "x", "$.type"),
        ('{"type":"subscribe","id":4}', "invalid_request", 4, "$"),
        ('{"type":"subscribe","id":4,"channel":"room:7","requestId":"r"}', "invalid_request", 4, "$"),
        ('{"type":"ping","id":9,"extra":1}', "invalid_request", 9, "$.extra"),
        (
            '{"type":"submit","id":2,"messages":[{"role":"me","content":""}]}',
            "invalid_request",
            2,
            "$.messages[0].role",
        ),
        (
            '{"type":"subscribe","id":1,"requestId":"r","after":{"epoch":"k","offset":-1}}',
            "invalid_request",
            1,
            "$.after.offset",
        ),
        ('{"type":"ping","id":1e300}', "invalid_request", None, "$.id"),
        ('{"type":"ping","id":1180591620717411303424}', "invalid_request", None, "$.id"),
        ('{"type":"submit","schema":' + '{"a":' * 100_000, "invalid_request", None, None),
    ],
)
def test_a_bad_frame_says_what_is_wrong(
    text: str | bytes, code: str, frame_id: int | str | None, path: str | None
) -> None:
    """A refusal has a code, the frame's id where it could be read, and the path of the invalid field."""
    error = refused(text)
    assert (error.code, error.frame_id) == (code, frame_id)
    assert [field.path for field in error.errors] == ([] if path is None else [path])
