"""Sends a span for each answer by OpenTelemetry, under the names that it has for generative AI.

The names are those of its semantic conventions for GenAI, version 1.41 ("development"). No text of a message
is in a span. Where spans go, and under which name, OpenTelemetry's own variables say (OTEL_…).
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Timer
from typing import TYPE_CHECKING

from modelway._version import __version__
from modelway.telemetry.records import RequestRecord, trail

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.util.types import AttributeValue

# What the conventions call providers; others are called by their own names.
_PROVIDERS = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "gemini-openai": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "vertex": "gcp.vertex_ai",
    "xai": "x_ai",
}
_RELAY = "relay"
LAST_WORDS_S = 1.0


class Traces:
    """Writes the records of requests as spans, in the trace of who has asked where it names one."""

    def __init__(self, provider: TracerProvider, exporter: SpanExporter) -> None:
        from opentelemetry.propagators.textmap import default_getter  # noqa: PLC0415 - an extra
        from opentelemetry.trace import SpanKind, StatusCode  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
            TraceContextTextMapPropagator,
        )

        self._provider = provider
        self._exporter = exporter
        self._tracer = provider.get_tracer("modelway", __version__)
        self._kind = SpanKind.CLIENT
        self._failed = StatusCode.ERROR
        self._extract = TraceContextTextMapPropagator().extract
        self._getter = default_getter

    def end(self, record: RequestRecord) -> None:
        """Send the span of a request that an upstream was asked for."""
        tried = record.attempts[-1] if record.attempts else None
        provider = record.provider or (tried.provider if tried else "")
        if not provider or record.turn:
            return
        model = record.model or (tried.model if tried else "")
        operation = record.path or _RELAY if record.dialect == _RELAY else "chat"
        begun = round(record.time * 1e9)
        span = self._tracer.start_span(
            f"{operation} {model}".strip(),
            context=self._extract({"traceparent": record.traceparent}, getter=self._getter),
            kind=self._kind,
            attributes=_attributes(record, provider, model, operation),
            start_time=begun,
        )
        if record.code:
            span.set_status(self._failed, record.code)
        span.end(begun + round(record.total_ms * 1e6))

    def close(self) -> None:
        """Send what has not been sent, where the collector takes it soon; blocks until then."""
        hurry = Timer(LAST_WORDS_S, self._exporter.shutdown)
        hurry.start()
        self._provider.shutdown()
        hurry.cancel()


def open_traces(exporter: SpanExporter | None = None) -> Traces:
    """Spans over OTLP, or to an exporter; ImportError where the extra is not installed."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - an extra, and slow
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    own = Resource.create({"service.name": "modelway", "service.version": __version__})
    # What the variables say comes last, so that it wins.
    provider = TracerProvider(resource=own.merge(OTELResourceDetector().detect()))
    chosen = exporter or OTLPSpanExporter()
    provider.add_span_processor(BatchSpanProcessor(chosen))
    return Traces(provider, chosen)


def _attributes(
    record: RequestRecord, provider: str, model: str, operation: str
) -> Mapping[str, AttributeValue]:
    told: dict[str, AttributeValue] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": _PROVIDERS.get(provider.lower(), provider.lower()),
        "gen_ai.request.model": model,
        "gen_ai.request.stream": record.stream,
        "http.response.status_code": record.status,
        "modelway.request_id": record.request_id,
        "modelway.caller": record.caller,
        "modelway.attempts": trail(record.attempts),
    }
    if record.first_ms:
        told["gen_ai.response.time_to_first_chunk"] = record.first_ms / 1000
    if record.input_tokens or record.output_tokens:
        told["gen_ai.usage.input_tokens"] = record.input_tokens
        told["gen_ai.usage.output_tokens"] = record.output_tokens
    if record.finish_reason:
        told["gen_ai.response.finish_reasons"] = (record.finish_reason,)
    if record.cost:
        told["modelway.cost"] = record.cost
    if record.code:
        told["error.type"] = record.code
    return told
