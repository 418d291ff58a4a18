"""What agents tell by OTLP: one call a record, whoever wrote it, and never a prompt."""

from __future__ import annotations

import gzip
import json
from typing import Any

import msgspec
import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from events.tokens import TokenParts, read
from services.telemetry import otlp
from services.telemetry.calls import calls_of
from services.telemetry.service import entry_of, id_of
from services.worker.telemetry import CallMeter
from tests.agents import telemetry as otel

CLAUDE = TokenParts(10, 40, 1000, 100)
CODEX = TokenParts(400, 50, 600)
GEMINI = TokenParts(500, 40, 400)


def test_each_agents_calls_are_read_as_its_driver_reads_them() -> None:
    opus = otel.claude(model="claude-opus-5-5[1m]")
    batch = calls_of(otel.delivery(opus, *otel.codex(), otel.gemini()))
    assert batch.rejected == 0
    assert [(c.agent, c.model, c.parts) for c in batch.calls] == [
        ("claude", "claude-opus-5-5", CLAUDE),
        ("codex", "gpt-6.1-sol", CODEX),
        ("gemini", "gemini-3.8-flash", GEMINI),
    ]
    assert batch.calls[0].request == "req_1"
    assert batch.calls[0].cost_usd == 0.01


def test_nothing_else_in_a_record_is_taken_in() -> None:
    other = otel.record({"event.name": "user_prompt", "prompt": otel.SECRET_WORDS})
    batch = calls_of(otel.delivery(other, otel.claude(), otel.gemini()))
    assert len(batch.calls) == 2
    kept = msgspec.json.encode(batch) + b"".join(map(entry_of, batch.calls))
    assert otel.SECRET_WORDS.encode() not in kept


def test_figures_that_cannot_be_read_are_rejected_with_the_reason() -> None:
    batch = calls_of(otel.delivery(otel.claude(input_tokens="many"), otel.claude("req_2")))
    assert (batch.rejected, len(batch.calls)) == (1, 1)
    assert batch.reason.startswith("api_request: ")


@pytest.mark.parametrize("body", [{}, {"resourceLogs": []}, {"resourceLogs": [7, {"a": 1}]}])
def test_deliveries_without_calls_are_fine(body: dict[str, Any]) -> None:
    assert calls_of(body).calls == ()


def test_each_call_counts_once_and_by_its_model() -> None:
    meter = CallMeter()
    calls = calls_of(otel.delivery(otel.claude(), otel.claude("req_2", "claude-haiku-5-5"))).calls
    assert meter.usage is None
    for _ in range(3):
        meter.take(calls)
    reading = read(meter.usage)
    assert dict(reading.models) == {"claude-opus-5-5": CLAUDE, "claude-haiku-5-5": CLAUDE}
    assert reading.usage == TokenParts(20, 80, 2000, 200)
    meter.take(calls_of(otel.delivery(*otel.codex(1), *otel.codex(2), *otel.codex(1))).calls)
    assert dict(read(meter.usage).models)["gpt-6.1-sol"] == TokenParts(800, 100, 1200)


def test_a_call_has_one_name_however_it_is_told() -> None:
    (first,) = calls_of(otel.delivery(otel.claude())).calls
    (again,) = calls_of(otel.delivery(otel.claude("req_1", prompt="another"))).calls
    assert (id_of(first), entry_of(first)) == (id_of(again), entry_of(again))
    two = calls_of(otel.delivery(*otel.codex(1), *otel.codex(2))).calls
    assert len({id_of(call) for call in two}) == 2


# -- the wire ----------------------------------------------------------------------------------


def test_protobuf_says_the_same_as_json() -> None:
    body = otel.delivery(otel.claude(), *otel.codex(), otel.gemini())
    message = ParseDict(body, ExportLogsServiceRequest())
    plain = otlp.unpacked(gzip.compress(message.SerializeToString()), "gzip")
    assert calls_of(otlp.decoded(plain, otlp.PROTOBUF)) == calls_of(body)
    assert calls_of(otlp.decoded(json.dumps(body).encode(), otlp.JSON)) == calls_of(body)


def test_a_body_that_unpacks_without_end_is_refused() -> None:
    bomb = gzip.compress(bytes(otlp.PLAIN_BYTES + 1))
    with pytest.raises(otlp.TooLarge):
        otlp.unpacked(bomb, "gzip")


@pytest.mark.parametrize(
    ("body", "kind", "encoding"),
    [
        (b"no gzip", otlp.JSON, "gzip"),
        (gzip.compress(b"{}", mtime=0)[:-6], otlp.JSON, "gzip"),
        (b"{}", otlp.JSON, "br"),
        (b"[1]", otlp.JSON, ""),
        (b"{", otlp.JSON, ""),
        (b"\xff\xff\xff", otlp.PROTOBUF, ""),
    ],
)
def test_what_is_no_delivery_is_an_error(body: bytes, kind: str, encoding: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        otlp.decoded(otlp.unpacked(body, encoding), kind)


def test_partial_success_is_said_in_the_senders_format() -> None:
    assert json.loads(otlp.answer(2, "no tokens", otlp.JSON)) == {
        "partialSuccess": {"rejectedLogRecords": "2", "errorMessage": "no tokens"}
    }
    said = ExportLogsServiceResponse.FromString(otlp.answer(2, "no tokens", otlp.PROTOBUF))
    assert said.partial_success.rejected_log_records == 2
    assert (otlp.answer(0, "", otlp.JSON), otlp.answer(0, "", otlp.PROTOBUF)) == (b"{}", b"")
