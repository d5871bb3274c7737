"""Which traces a process has: OpenTelemetry's where the settings name a collector, none elsewhere."""

from __future__ import annotations

from drawbar.settings import TraceSettings
from drawbar.traces import NO_TRACES, Traces
from schemas.errors import SettingsError


def open_traces(settings: TraceSettings, stage: str) -> Traces:
    """The traces of one process, as the settings have them.

    Raises SettingsError when they are wanted and OpenTelemetry is not installed.
    """
    if not settings.endpoint:
        return NO_TRACES
    try:
        from drawbar.telemetry import OpenTelemetry  # noqa: PLC0415 - what it needs may not be installed
    except ImportError as fault:
        raise SettingsError(
            "traces are wanted, but OpenTelemetry is not installed",
            where="DRAWBAR_TRACES__ENDPOINT",
            next_step='pip install "drawbar[otel]", or leave the endpoint blank',
        ) from fault
    return OpenTelemetry.to_collector(settings, stage)
