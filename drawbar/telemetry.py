"""Traces told to OpenTelemetry. Imported only where they are wanted: it needs the extra `otel`.

A change is sampled at its capture; every stage after it follows that decision, which is part of the `traceparent`.
"""

from __future__ import annotations

from datetime import datetime

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_NAMESPACE, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import Link, SpanKind, StatusCode, get_current_span, set_span_in_context
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from typing_extensions import Self

from drawbar.settings import TraceSettings
from drawbar.traces import Attribute, Headers, trace_headers

SEND_TIMEOUT_S = 3  # of one batch with all its tries; the last one is waited for at the end of a process

_W3C = TraceContextTextMapPropagator()


class OpenTelemetry:
    """Implements `drawbar.traces.Traces`. Safe to use from several threads."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("drawbar")

    @classmethod
    def to_collector(cls, settings: TraceSettings, stage: str) -> Self:
        """Spans go out in batches, in a thread of their own; while no collector answers they are dropped."""
        provider = TracerProvider(
            sampler=ParentBasedTraceIdRatio(settings.sample_ratio),
            resource=Resource.create({SERVICE_NAMESPACE: "drawbar", SERVICE_NAME: f"drawbar-{stage}"}),
            shutdown_on_exit=False,
        )
        provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(endpoint=settings.endpoint, timeout=SEND_TIMEOUT_S))
        )
        return cls(provider)

    def begin(
        self, name: str, headers: Headers = (), *, links: Headers = (), at: datetime | None = None, place: str = ""
    ) -> _Span:
        linked = get_current_span(_context(links)).get_span_context()
        span = self._tracer.start_span(
            name,
            context=_context(headers),
            kind=SpanKind.CONSUMER if place else SpanKind.PRODUCER,
            links=[Link(linked)] if linked.is_valid else [],
            attributes={"messaging.system": "kafka", "messaging.destination.name": place} if place else {},
            start_time=round(at.timestamp() * 1e9) if at is not None else None,
        )
        return _Span(span)

    def close(self) -> None:
        self._provider.shutdown()


class _Span:
    """Implements `drawbar.traces.Span`."""

    __slots__ = ("_span", "headers")

    def __init__(self, span: OtelSpan) -> None:
        self._span = span
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, set_span_in_context(span, Context()))
        self.headers = tuple((name, value.encode()) for name, value in carrier.items())

    def note(self, **attributes: Attribute) -> None:
        for name, value in attributes.items():
            self._span.set_attribute(f"drawbar.{name}", value)
        if code := attributes.get("code"):
            self._span.set_status(StatusCode.ERROR, str(code))

    def end(self) -> None:
        self._span.end()


def _context(headers: Headers) -> Context:
    carrier = {name: value.decode("ascii", "replace") for name, value in trace_headers(headers)}
    return _W3C.extract(carrier, Context())
