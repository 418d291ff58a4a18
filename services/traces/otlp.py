"""Spans as a request of OTLP, in protobuf. PURE."""

from __future__ import annotations

from collections.abc import Iterable

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from services.runtime import VERSION
from services.traces.journeys import Attributes, Stretch

SERVICE = "asb"
NS_PER_US = 1_000


def request(spans: Iterable[Stretch]) -> bytes:
    """The body that delivers ``spans``: opentelemetry/proto/collector/trace/v1."""
    resource = Resource(attributes=_attributes({"service.name": SERVICE}))
    scope = ScopeSpans(
        scope=InstrumentationScope(name=SERVICE, version=VERSION), spans=map(_span, spans)
    )
    group = ResourceSpans(resource=resource, scope_spans=[scope])
    return ExportTraceServiceRequest(resource_spans=[group]).SerializeToString()


def _span(span: Stretch) -> OtlpSpan:
    failed = Status(code=Status.STATUS_CODE_ERROR, message=span.error) if span.error else None
    return OtlpSpan(
        trace_id=span.trace,
        span_id=span.id,
        parent_span_id=span.parent,
        name=span.name,
        kind=OtlpSpan.SPAN_KIND_INTERNAL,
        start_time_unix_nano=span.began * NS_PER_US,
        end_time_unix_nano=span.ended * NS_PER_US,
        attributes=_attributes(span.attributes),
        status=failed,
    )


def _attributes(values: Attributes) -> list[KeyValue]:
    return [KeyValue(key=key, value=_value(value)) for key, value in values.items() if value != ""]


def _value(value: str | int | float) -> AnyValue:
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    return AnyValue(double_value=value)
