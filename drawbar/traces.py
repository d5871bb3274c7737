"""One trace per change, from capture to outcome: the port through which stages tell of it, and what it costs without.

The W3C `traceparent` (and `tracestate`) of a message travels in its Kafka headers. A stage that traces nothing hands on
what came with the message that it works on, and that is all it costs. A stage that traces begins a span for each
message it works on, sends that span's context with everything that the message causes, and ends the span when all of it
is with the broker. What is not finished is not told: it is done again, and told then.

The implementation that tells OpenTelemetry is in `drawbar/telemetry.py`; it is an extra of the package.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Protocol, Union

Headers = Sequence[tuple[str, bytes]]
Attribute = Union[str, int]

PARENT = "traceparent"
CARRIED = (PARENT, "tracestate")


class Span(Protocol):
    """One message being worked on."""

    @property
    def headers(self) -> tuple[tuple[str, bytes], ...]:
        """For everything that the message causes."""
        ...

    def note(self, **attributes: Attribute) -> None:
        """Ids, names and codes, never values. A `code` that is not blank says that the message could not go on."""
        ...

    def end(self) -> None: ...


class Traces(Protocol):
    def begin(
        self, name: str, headers: Headers = (), *, links: Headers = (), at: datetime | None = None, place: str = ""
    ) -> Span:
        """A span that continues the trace in `headers`, or begins one where there is none.

        `links`: headers of a message, long past, that this one is about again. `place`: the topic of the message.
        `at`: when the work began, if not now.
        """
        ...

    def close(self) -> None:
        """Send what has not been sent."""
        ...


def trace_headers(headers: Headers) -> tuple[tuple[str, bytes], ...]:
    """What is handed on of the headers of a message."""
    return tuple(header for header in headers if header[0] in CARRIED)


class HandedOn:
    """A span that nobody is told of."""

    __slots__ = ("headers",)

    def __init__(self, headers: tuple[tuple[str, bytes], ...]) -> None:
        self.headers = headers

    def note(self, **attributes: Attribute) -> None: ...

    def end(self) -> None: ...


class NoTraces:
    """Implements `Traces` where nothing is traced."""

    _nothing = HandedOn(())

    def begin(
        self,
        name: str,  # noqa: ARG002 - nobody is told
        headers: Headers = (),
        *,
        links: Headers = (),  # noqa: ARG002
        at: datetime | None = None,  # noqa: ARG002
        place: str = "",  # noqa: ARG002
    ) -> Span:
        return HandedOn(trace_headers(headers)) if headers else self._nothing

    def close(self) -> None: ...


NO_TRACES = NoTraces()


def end_all(spans: Iterable[Span]) -> None:
    for span in spans:
        span.end()
