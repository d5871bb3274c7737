"""One change is one trace, over all stages; and what a stage that traces nothing does with the traces of others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from msgspec.structs import replace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

from drawbar.ports import InMessage
from drawbar.settings import TraceSettings
from drawbar.telemetry import OpenTelemetry
from drawbar.traces import NO_TRACES
from drawbar.tracing import open_traces
from schemas.codec import encode
from schemas.records import Order, OrderKind, Work
from schemas.topics import DEAD_LETTERS, DEAD_LETTERS_INDEX, JOURNAL, PAIRS_WORK
from tests.processors_shell.given import a_change, a_work, an_id
from tests.traces.stages import Stages

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
THEIRS = ("traceparent", f"00-{TRACE_ID}-b7ad6b7169203331-01".encode())
STATE = ("tracestate", b"vendor=1")


class Told:
    """What all stages told OpenTelemetry."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._providers: list[TracerProvider] = []

    def of_stage(self, stage: str) -> OpenTelemetry:
        provider = TracerProvider(resource=Resource({"service.name": stage}), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._providers.append(provider)
        return OpenTelemetry(provider)

    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def close(self) -> None:
        for provider in self._providers:
            provider.shutdown()


@pytest.fixture
def told() -> Iterator[Told]:
    found = Told()
    yield found
    found.close()


def stage_of(span: ReadableSpan) -> object:
    return span.resource.attributes["service.name"]


def taken(work: Work) -> InMessage:
    return InMessage(topic=PAIRS_WORK, partition=0, offset=0, key=work.key.encode(), value=encode(work))


def with_uncoupled_salesperson(stages: Stages) -> Stages:
    change = a_change(an_id(7, "salesperson"), entity="salesperson", code="JR", email="jr@example.com")
    stages.decided_only(taken(a_work(change, "salesperson-systemuser")))
    return stages


def a_held_change() -> InMessage:
    """Work for a customer whose salesperson is not coupled."""
    return replace(taken(a_work(a_change(an_id(1), salespersonCode="JR"))), headers=(THEIRS,))


def a_retry() -> InMessage:
    order = Order(order_id="again", kind=OrderKind.RETRY, by="operator")
    return taken(Work(message_id="again", mapping="customer-account", home=an_id(1), order=order))


class TestTrace:
    def test_is_one_from_capture_to_outcome(self, told: Told):
        """Each stage's span is the child of the one that sent it the message."""
        stages = Stages(told.of_stage)
        stages.decided_only(stages.written(stages.decided(stages.routed(stages.captured()))))

        spans = told.spans()
        assert [
            ("capture", "capture"),
            ("process", "route"),
            ("process", "decide"),
            ("sink-crm", "sink"),
            ("process", "decide"),
        ] == [(stage_of(span), span.name) for span in spans]
        assert 1 == len({span.context.trace_id for span in spans})
        assert [None, *(span.context.span_id for span in spans[:-1])] == [
            span.parent.span_id if span.parent else None for span in spans
        ]

    def test_says_of_what_it_is_by_ids_alone(self, told: Told):
        """No value of a record is told to anybody."""
        stages = Stages(told.of_stage)
        stages.written(stages.decided(stages.routed(stages.captured())))

        capture, _, decide, sink = told.spans()
        assert "erp.customer" == capture.attributes["drawbar.entity"]
        assert decide.attributes["drawbar.command_id"] == sink.attributes["drawbar.command_id"]
        assert ("written", 1) == (sink.attributes["drawbar.outcome"], sink.attributes["drawbar.requests"])
        assert [] == [
            name for span in told.spans() for name, said in span.attributes.items() if "Fabrikam" in str(said)
        ]

    def test_goes_with_the_journal(self, told: Told):
        """Whoever reads why something was done finds its trace."""
        stages = Stages(told.of_stage)
        stages.decided(stages.routed(stages.captured()))
        (trace,) = {span.context.trace_id for span in told.spans()}
        lines = [message for message in stages.sent.messages if message.topic == JOURNAL]

        assert [f"{trace:032x}"] * len(lines) == [dict(line.headers)["traceparent"].decode()[3:35] for line in lines]

    def test_goes_with_a_dead_letter_and_marks_its_span(self, told: Told):
        stages = with_uncoupled_salesperson(Stages(told.of_stage))
        sent = stages.decided_only(a_held_change())

        _, span = told.spans()
        letters = [message for message in sent if message.topic in (DEAD_LETTERS, DEAD_LETTERS_INDEX)]
        assert [THEIRS, THEIRS] == [header for message in letters for header in message.headers if header == THEIRS]
        assert StatusCode.ERROR == span.status.status_code
        assert span.attributes["drawbar.code"] == span.status.description

    def test_of_what_is_tried_again_links_to_that_of_what_was_held(self, told: Told):
        """A release or a replay may come days later: it is a trace of its own, and names the other."""
        stages = with_uncoupled_salesperson(Stages(told.of_stage))
        stages.decided_only(a_held_change())
        stages.decided_only(a_retry())

        _, held, again = told.spans()
        assert TRACE_ID == f"{held.context.trace_id:032x}"
        assert again.context.trace_id != held.context.trace_id
        assert [held.context.trace_id] == [link.context.trace_id for link in again.links]

    def test_that_is_not_sampled_stays_so(self):
        """The decision is capture's, and goes along."""
        provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
        stages = Stages(lambda _stage: OpenTelemetry(provider))

        outcome = stages.written(stages.decided(stages.routed(stages.captured())))
        flags = int(dict(outcome.headers)["traceparent"].decode()[-2:], 16)
        assert 0 == flags & 1
        provider.shutdown()

    def test_is_not_told_of_what_was_not_finished(self, told: Told):
        """Nobody has the messages: the work is done again, and told then."""
        stages = Stages(told.of_stage)
        stages.capture.fate.publish_fails = 1
        stages.capture.world.create("Fabrikam")
        stages.capture.step()

        assert [] == told.spans()


class TestNoTraces:
    def test_begin_nothing(self):
        """Where nobody wants traces, messages have no more headers than before."""
        stages = Stages(lambda _stage: NO_TRACES)
        outcome = stages.written(stages.decided(stages.routed(stages.captured())))

        assert () == outcome.headers

    def test_hand_on_the_trace_of_others(self):
        """A change that came with a trace, from whoever captured it, keeps it to the end."""
        stages = Stages(lambda _stage: NO_TRACES)
        change = stages.captured()
        outcome = stages.written(
            stages.decided(stages.routed(replace(change, headers=(*change.headers, THEIRS, STATE))))
        )

        assert (THEIRS, STATE) == outcome.headers


class TestOpenTraces:
    def test_are_none_without_an_endpoint(self):
        assert NO_TRACES is open_traces(TraceSettings(), "capture")
