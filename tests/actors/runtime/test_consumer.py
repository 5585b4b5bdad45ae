import asyncio

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from actors.runtime import Actor, Deferred, Ref, handles
from actors.runtime.testing import TestSystem
from protocol import spans
from protocol.errors import NotFound, ProviderError
from protocol.message import Message


class Say(Message[str], frozen=True):
    what: str

    traced = True


class Quiet(Message[str], frozen=True):
    what: str


class Said(Message[None], frozen=True):
    what: str

    traced = True


class Speaker(Actor[Say | Quiet | Said]):
    restarts = 0

    def __init__(self, then: Ref[Say] | None = None, gate: asyncio.Event | None = None) -> None:
        self.then = then
        self.gate = gate

    @handles(Say)
    async def say(self, message: Say) -> str | Deferred[str]:
        match message.what:
            case "missing":
                raise NotFound("nothing to say")
            case "provider":
                raise ProviderError("it failed")
            case "crash":
                raise ValueError("secret")
            case "pipe":
                self.pipe(self.inner(), Said, lambda error: Said(str(error)))
            case "defer":
                return self.defer(self.inner())
        if self.then is not None:
            return await self.then.ask(message, timeout=1)
        if self.gate is not None:
            await self.gate.wait()
        return message.what

    async def inner(self) -> str:
        with trace.get_tracer("test", tracer_provider=PROVIDERS[-1]).start_as_current_span("inner"):
            if self.gate is not None:
                await self.gate.wait()
        return "done"

    @handles(Quiet)
    async def quiet(self, message: Quiet) -> str:
        return format(trace.get_current_span().get_span_context().trace_id, "032x")

    @handles(Said)
    async def said(self, message: Said) -> None: ...


PROVIDERS: list[TracerProvider] = []


class Recorded:
    """A tracer provider and what it has exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")
        PROVIDERS.append(self.provider)

    def spans(self, name: str) -> list[ReadableSpan]:
        """Return the finished spans of this name."""
        return [span for span in self.exporter.get_finished_spans() if span.name == name]


@pytest.fixture
def recorded() -> Recorded:
    """Spans kept in memory."""
    return Recorded()


def parent(span: ReadableSpan) -> int:
    """Return the id of the span's parent; it has to have one."""
    assert span.parent is not None
    return span.parent.span_id


def kind(span: ReadableSpan) -> object:
    """Return the class of the message that was handled."""
    return (span.attributes or {})[spans.MESSAGE_TYPE]


def own(span: ReadableSpan) -> int:
    """Return the span's id."""
    context = span.get_span_context()
    assert context is not None
    return context.span_id


async def test_one_consumer_span_a_traced_message(recorded: Recorded) -> None:
    """A traced message has a CONSUMER span below the sender's, with the messaging attributes."""
    async with TestSystem(tracer_provider=recorded.provider) as system:
        first = system.spawn(Speaker, name="first")
        second = system.spawn(lambda: Speaker(first), name="second")
        with recorded.tracer.start_as_current_span("caller") as caller:
            await second.ask(Say("hello"), timeout=1)
        [outer], [inner] = recorded.spans("process second"), recorded.spans("process first")
        assert parent(outer) == caller.get_span_context().span_id
        assert parent(inner) == own(outer)
        assert outer.kind is SpanKind.CONSUMER
        assert dict(outer.attributes or {}) == {
            spans.MESSAGING_SYSTEM: "tidegate",
            spans.MESSAGING_OPERATION: "process",
            spans.MESSAGING_OPERATION_TYPE: "process",
            spans.MESSAGING_DESTINATION: "second",
            spans.MESSAGE_TYPE: "Say",
            spans.MAILBOX_WAIT: 0.0,
        }
        assert outer.status.status_code is StatusCode.UNSET


async def test_mailbox_wait(recorded: Recorded) -> None:
    """The time in the mailbox is an attribute, in milliseconds."""
    gate = asyncio.Event()
    async with TestSystem(tracer_provider=recorded.provider) as system:
        ref = system.spawn(lambda: Speaker(gate=gate), name="speaker")
        await ref.tell(Say("one"))
        await ref.tell(Say("two"))
        await system.advance(1.5)
        gate.set()
        await system.settle()
    waits = [(span.attributes or {})[spans.MAILBOX_WAIT] for span in recorded.spans("process speaker")]
    assert waits == [0.0, 1500.0]


async def test_quiet_message_has_no_span_but_its_context(recorded: Recorded) -> None:
    """A message that is not traced opens no span, and its handler still runs within the sender's trace."""
    async with TestSystem(tracer_provider=recorded.provider) as system:
        ref = system.spawn(Speaker, name="speaker")
        with recorded.tracer.start_as_current_span("caller") as caller:
            seen = await ref.ask(Quiet("shh"), timeout=1)
        assert seen == format(caller.get_span_context().trace_id, "032x")
        assert await ref.ask(Quiet("shh"), timeout=1) == "0" * 32
    assert recorded.spans("process speaker") == []


@pytest.mark.parametrize(
    ("what", "kind", "status"),
    [
        ("missing", "not_found", StatusCode.UNSET),
        ("provider", "provider_error", StatusCode.ERROR),
        ("crash", "ValueError", StatusCode.ERROR),
    ],
)
async def test_failures(recorded: Recorded, what: str, kind: str, status: StatusCode) -> None:
    """A failure is the span's ``error.type``, and its status unless it is the caller's own; no text leaks."""
    async with TestSystem(tracer_provider=recorded.provider) as system:
        await system.spawn(Speaker, name="speaker").tell(Say(what))
        await system.settle()
    [span] = recorded.spans("process speaker")
    assert (span.attributes or {})[spans.ERROR_TYPE] == kind
    assert span.status.status_code is status
    assert "secret" not in span.to_json()


async def test_work_is_below_the_message(recorded: Recorded) -> None:
    """Piped work, and the message that it brings, are below the span of the message that ordered it."""
    async with TestSystem(tracer_provider=recorded.provider) as system:
        await system.spawn(Speaker, name="speaker").ask(Say("pipe"), timeout=1)
        await system.settle()
    said, say = sorted(recorded.spans("process speaker"), key=lambda span: kind(span) == "Say")
    [inner] = recorded.spans("inner")
    assert parent(inner) == parent(said) == own(say)


async def test_span_stays_open_until_the_deferred_reply(recorded: Recorded) -> None:
    """The span of a message whose reply is deferred ends with the reply."""
    gate = asyncio.Event()
    async with TestSystem(tracer_provider=recorded.provider) as system:
        ref = system.spawn(lambda: Speaker(gate=gate), name="speaker")
        asked = system.background(ref.ask(Say("defer"), timeout=1), name="asker")
        await system.settle()
        assert recorded.spans("process speaker") == []
        gate.set()
        assert await asked == "done"
        [span] = recorded.spans("process speaker")
        assert parent(recorded.spans("inner")[0]) == own(span)


async def test_span_of_an_abandoned_deferred_reply_ends(recorded: Recorded) -> None:
    """When the asker is cancelled its span ends, and is no fault."""
    async with TestSystem(tracer_provider=recorded.provider) as system:
        ref = system.spawn(lambda: Speaker(gate=asyncio.Event()), name="speaker")
        asked = system.background(ref.ask(Say("defer"), timeout=1), name="asker")
        await system.settle()
        asked.cancel()
        await system.settle()
    [span] = recorded.spans("process speaker")
    assert (span.attributes or {})[spans.ERROR_TYPE] == "CancelledError"
    assert span.status.status_code is StatusCode.UNSET


async def test_keyed_actors_share_a_name(recorded: Recorded) -> None:
    """The span of a keyed actor is named after the family: its keys are too many for names."""
    async with TestSystem(tracer_provider=recorded.provider) as system:
        family = system.keyed(lambda _: Speaker(), name="speakers", idle=60, limit=8)
        await family.ref("one").ask(Say("hello"), timeout=1)
    assert len(recorded.spans("process speakers")) == 1


async def test_systems_have_their_own_tracers() -> None:
    """Two systems with two providers export apart."""
    one, other = Recorded(), Recorded()
    async with TestSystem(tracer_provider=one.provider) as first, TestSystem(tracer_provider=other.provider) as second:
        await first.spawn(Speaker, name="first").ask(Say("hello"), timeout=1)
        await second.spawn(Speaker, name="second").ask(Say("hello"), timeout=1)
    assert [span.name for span in one.exporter.get_finished_spans()] == ["process first"]
    assert [span.name for span in other.exporter.get_finished_spans()] == ["process second"]
