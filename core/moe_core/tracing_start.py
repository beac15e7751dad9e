"""Gives a program its tracer: OpenTelemetry is imported here, and only where it is wanted."""

from __future__ import annotations

from collections.abc import Mapping

from moe_core.tracing import Tracer, Untraced
from moe_core.tracing_settings import Tracing


class CannotTrace(RuntimeError):
    """Traces are wanted, and OpenTelemetry is not installed, or does not take a setting."""


def tracer_of(settings: Tracing | None, service: str, about: Mapping[str, str]) -> Tracer:
    """Return what sends the spans of `service`, which also say `about`. Raises CannotTrace."""
    if settings is None:
        return Untraced()
    try:
        from moe_core.otlp import OtlpTracer
    except ImportError as error:
        text = f"spans are to be sent to {settings.endpoint}, and {error.name} is not installed"
        raise CannotTrace(f"{text}; install moeops[tracing], or name no endpoint") from error
    try:
        return OtlpTracer(settings, service, about)
    except ValueError as error:
        raise CannotTrace(str(error)) from error
