"""The table of faults: what the upstream does, and how a request ends."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass

from actors.llm_gateway.provider import ProviderDeadlines
from actors.testing import Cut, Data, End, Fault, Ping, Reply, Reset, Say, Send, Stall, Step, Wait, refuse

Script = Callable[[asyncio.Event], tuple[Reply, ...]]

ATTEMPTS = 2
PATIENT = ProviderDeadlines(connect=5, first_token=20, between_chunks=20)
HASTY = ProviderDeadlines(connect=5, first_token=0.3, between_chunks=0.3)
HELLO = "Hello world"
BEGUN = "Hel"
TOTAL = 20.0  # seconds
SHORT = 0.4  # seconds


@dataclass(frozen=True)
class Case:
    """A fault.

    Attributes:
        name: in the test's id.
        script: the upstream's replies to the calls of one request, in order. A ``Wait`` ends when the last of the calls
            has arrived, and with content when that is in the request's log.
        code: of the failure; empty for an answer.
        text: the content, whether or not the request then fails.
        deadlines: of the provider.
        total: seconds for the request.
        retry_after: seconds of the client's ``Retry-After``, rounded up.
        deaf: no upstream listens, so no call arrives.
    """

    name: str
    script: Script
    code: str = ""
    text: str = ""
    deadlines: ProviderDeadlines = PATIENT
    total: float = TOTAL
    retry_after: int | None = None
    deaf: bool = False

    @property
    def begun(self) -> bool:
        """Whether the failure comes after content."""
        return bool(self.code and self.text)


def twice(reply: Reply) -> Script:
    """The same reply to every attempt."""
    return lambda _: (reply,) * ATTEMPTS


def once(*replies: Reply) -> Script:
    """One reply for each attempt."""
    return lambda _: replies


def begun(*last: Step) -> Script:
    """Content, and the steps of ``last`` when it is in the log."""
    return lambda seen: (Reply(steps=(Say(BEGUN), Wait(seen), *last)),)


def late(reply: Reply) -> Script:
    """Slow headers."""
    return lambda seen: (Reply(before=(Wait(seen),), steps=reply.steps),)


def said(status: int, message: str, code: str = "") -> Reply:
    """A refusal with a message."""
    error = {"type": "error", "message": message, "code": code}
    return Reply(status=status, body=json.dumps({"error": error}).encode())


TOO_LONG = Fault(kind="invalid_request_error", message="prompt is too long: 9 tokens > 8 maximum")
UNPAID = Fault(kind="invalid_request_error", message="Your credit balance is too low: a secret")
HALF_A_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-st"
NONSENSE = Data(b"{nonsense")
EMPTY = Data(b"")
BLANK = Data(b" \t ")
NULL = Data(b"null")
DONE = Data(b'"[done]"')
NO_TEXT = Data(b"\xff\xfe")
MAX_EVENT = 2 * 1024 * 1024  # bytes
HUGE = Data(b"x" * (MAX_EVENT + 512 * 1024))
PING = Ping()
LONG = "x" * 100_000
LARGE = "x" * 1_200_000
CUT = Send(b'data: {"c')  # an event, or a message, that is not complete
UNCODED = {"content-encoding": "utf-8, identity"}
GREETING = "Grüße 🌊 ŉ\u2028."

CASES = (
    # the connection
    Case("refused", once(), "provider_unavailable", deaf=True),
    Case("reset", twice(Reply(before=(Reset(),))), "provider_unavailable"),
    Case("closed_without_a_word", twice(Reply(before=(Cut(),))), "provider_unavailable"),
    Case("no_http", once(Reply(before=(Send(b"nonsense\r\n\r\n"), Stall()))), "provider_bad_response"),
    # refusals
    Case("408", twice(refuse(408)), "provider_timeout"),
    Case("408_for_a_moment", twice(refuse(408, retry_after_ms="5")), "provider_timeout", retry_after=1),
    Case("429", twice(refuse(429)), "provider_rate_limited"),
    Case("429_for_long", once(refuse(429, retry_after="600")), "provider_rate_limited", retry_after=600),
    Case("429_for_a_moment", twice(refuse(429, retry_after_ms="5")), "provider_rate_limited", retry_after=1),
    Case("500", twice(refuse(500)), "provider_error"),
    Case("500_for_long", once(refuse(500, retry_after="600")), "provider_error", retry_after=600),
    Case("503", twice(refuse(503)), "provider_unavailable"),
    Case("503_for_a_moment", twice(refuse(503, retry_after_ms="5")), "provider_unavailable", retry_after=1),
    Case("529", twice(refuse(529)), "provider_unavailable"),
    Case("529_for_long", once(refuse(529, retry_after="600")), "provider_unavailable", retry_after=600),
    # whose fault a refusal is; the bodies are in tests/protocol/refusal_bodies.py
    Case("context_length", once(said(400, "prompt is too long: 9 tokens > 8 maximum")), "context_length_exceeded"),
    Case("content", once(said(400, "Output blocked by content filtering policy")), "content_policy"),
    Case("unknown_model", once(said(404, "The model `x` does not exist")), "model_not_found"),
    Case("tool_schema", once(said(400, "Invalid schema for function 'f'")), "bad_tool_schema"),
    Case("bad_value", once(said(422, "top_p is out of range")), "provider_rejected"),
    Case("wrong_address", once(said(404, "Not Found")), "provider_bad_response"),
    Case("402", once(said(402, "a secret balance")), "provider_billing"),
    Case("429_without_credit", once(said(429, "a secret", "insufficient_quota")), "provider_billing"),
    Case("401", once(said(401, "a secret key")), "provider_credentials"),
    Case("400_for_the_key", once(said(400, "API key not valid: a secret")), "provider_credentials"),
    Case("400_for_the_rate", twice(said(400, "a secret", "rate_limit_exceeded")), "provider_rate_limited"),
    Case(
        "400_for_the_account", once(said(400, "This organization has been disabled: a secret")), "provider_credentials"
    ),
    Case("403_without_credit", once(said(403, "Your account has an overdue balance: a secret")), "provider_billing"),
    Case(
        "404_in_the_clouds_words", once(said(404, "Could not resolve the foundation model from: x")), "model_not_found"
    ),
    Case("404_for_a_model", once(said(404, "Not found: model x")), "model_not_found"),
    Case("425", twice(refuse(425)), "provider_error"),
    Case("498", twice(refuse(498)), "provider_unavailable"),
    Case(
        "throttled_by_header",
        twice(refuse(400, x_amzn_errortype="ThrottlingException:http://x/")),
        "provider_rate_limited",
    ),
    Case("in_band_context_length", once(Reply(steps=(TOO_LONG,))), "context_length_exceeded"),
    Case("in_band_billing", once(Reply(steps=(UNPAID,))), "provider_billing"),
    Case("in_band_billing_in_mid_stream", begun(UNPAID), "provider_billing", BEGUN),
    # silence
    Case("no_headers", twice(Reply(before=(Stall(),))), "provider_timeout", deadlines=HASTY),
    Case("half_a_head", twice(Reply(before=(Send(HALF_A_HEAD), Stall()))), "provider_timeout", deadlines=HASTY),
    Case("slow_headers", late(Reply()), text=HELLO),
    Case("no_token", twice(Reply(steps=(Stall(),))), "provider_timeout", deadlines=HASTY),
    Case("pings_and_no_token", twice(Reply(steps=(PING, Stall()))), "provider_timeout", deadlines=HASTY),
    Case("stall_in_mid_stream", begun(Stall()), "provider_timeout", BEGUN, deadlines=HASTY),
    Case("out_of_time", once(Reply(steps=(Stall(),))), "deadline_exceeded", total=SHORT),
    Case("out_of_time_in_mid_stream", begun(Stall()), "deadline_exceeded", BEGUN, total=SHORT),
    # streams that break off
    Case("nothing", twice(Reply(steps=())), "provider_stream_broken"),
    Case("cut_before_content", twice(Reply(steps=(PING, Cut()))), "provider_stream_broken"),
    Case("cut_in_mid_stream", begun(Cut()), "provider_stream_broken", BEGUN),
    Case("reset_in_mid_stream", begun(Reset()), "provider_stream_broken", BEGUN),
    Case("no_end", begun(), "provider_stream_broken", BEGUN),
    Case("cut_in_an_event", twice(Reply(steps=(CUT,))), "provider_stream_broken"),
    Case("cut_in_an_event_in_mid_stream", begun(CUT), "provider_stream_broken", BEGUN),
    # what is said
    Case("in_band_error", twice(Reply(steps=(Fault(kind="api_error"),))), "provider_error"),
    Case("in_band_limit", twice(Reply(steps=(Fault(kind="rate_limit_error"),))), "provider_rate_limited"),
    Case("in_band_error_in_mid_stream", begun(Fault(kind="api_error")), "provider_error", BEGUN),
    Case("malformed_json", once(Reply(steps=(NONSENSE,))), "provider_bad_response"),
    Case("malformed_json_in_mid_stream", begun(NONSENSE), "provider_bad_response", BEGUN),
    Case("no_utf8", once(Reply(steps=(NO_TEXT,))), "provider_bad_response"),
    Case("huge_chunk", once(Reply(steps=(HUGE, End()))), "response_too_large"),
    Case("huge_chunk_in_mid_stream", begun(HUGE, End()), "response_too_large", BEGUN),
    Case("wrong_content_type", once(Reply(content_type="text/html")), "provider_bad_response"),
    # ends that are no ends
    Case("a_reason_that_broke_off", begun(End(word="error", usage=None, marker=False)), "provider_error", BEGUN),
    Case("a_reason_that_broke_off_at_once", twice(Reply(steps=(End(word="ABORT"),))), "provider_error"),
    Case(
        "an_unknown_reason_and_a_cut",
        begun(End(word="news", usage=None, marker=False), Cut()),
        "provider_stream_broken",
        BEGUN,
    ),
    Case(
        "an_unknown_reason_and_a_cut_event",
        begun(End(word="news", usage=None, marker=False), CUT),
        "provider_stream_broken",
        BEGUN,
    ),
    Case("an_unknown_reason_alone", once(Reply(steps=(End(word="news"),))), "provider_bad_response"),
    Case(
        "calls_without_a_call",
        once(Reply(steps=(End(finish_reason="tool_calls", usage=None),))),
        "provider_bad_response",
    ),
    Case(
        "calls_without_a_call_in_mid_stream",
        begun(End(finish_reason="tool_calls", usage=None)),
        "provider_bad_response",
        BEGUN,
    ),
    Case("no_reason", begun(End(word="null", usage=None)), "provider_stream_broken", BEGUN),
    # what is no fault
    Case("an_unknown_reason", once(Reply(steps=(Say(HELLO), End(word="news")))), text=HELLO),
    Case("a_reason_in_other_words", once(Reply(steps=(Say(HELLO), End(word="STOP")))), text=HELLO),
    Case("parked_at_its_end", once(Reply(steps=(Say(HELLO), End(marker=False), Stall()))), text=HELLO, deadlines=HASTY),
    Case(
        "parked_with_an_unknown_reason",
        once(Reply(steps=(Say(HELLO), End(word="news", marker=False), Stall()))),
        text=HELLO,
        deadlines=HASTY,
    ),
    Case("cut_after_its_end", once(Reply(steps=(Say(HELLO), End(marker=False), CUT))), text=HELLO),
    Case("nonsense_after_its_end", once(Reply(steps=(Say(HELLO), End(marker=False), NONSENSE))), text=HELLO),
    Case("an_end_mark_in_other_words", once(Reply(steps=(Say(HELLO), End(marker=False), DONE))), text=HELLO),
    Case("an_encoding_that_is_none", once(Reply(headers=UNCODED)), text=HELLO),
    Case("whole_for_a_stream", once(Reply(whole=True)), text=HELLO),
    Case("events_without_data", once(Reply(steps=(EMPTY, Say(HELLO), EMPTY, NULL, BLANK, End()))), text=HELLO),
    Case("large_chunk", once(Reply(steps=(Say(LONG), End()))), text=LONG),
    Case("an_answer_in_one_event", once(Reply(steps=(Say(LARGE), End()))), text=LARGE),
    Case("split_bytes", once(Reply(steps=(Say(GREETING), End()), split=1)), text=GREETING),
    Case("split_characters", once(Reply(steps=(Say(GREETING), End()), split=7)), text=GREETING),
    Case("repeated_end", once(Reply(steps=(Say(HELLO), End(marker=False), End(), End(), Say("more")))), text=HELLO),
    Case("no_end_marker", once(Reply(steps=(Say(HELLO), End(marker=False)))), text=HELLO),
    # flapping
    Case("503_then_an_answer", once(refuse(503), Reply()), text=HELLO),
    Case("429_then_an_answer", once(refuse(429, retry_after_ms="5"), Reply()), text=HELLO),
    Case("reset_then_an_answer", once(Reply(before=(Reset(),)), Reply()), text=HELLO),
    Case("silence_then_an_answer", once(Reply(steps=(Stall(),)), Reply()), text=HELLO, deadlines=HASTY),
    Case("in_band_error_then_an_answer", once(Reply(steps=(Fault(kind="api_error"),)), Reply()), text=HELLO),
)
