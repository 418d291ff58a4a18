"""OTLP over HTTP, its bodies: JSON or protobuf, plain or gzip, in both directions. PURE."""

from __future__ import annotations

import zlib
from typing import Any

import msgspec

JSON, PROTOBUF = "application/json", "application/x-protobuf"
BODY_BYTES = 16 * 2**20  # as it comes
PLAIN_BYTES = 64 * 2**20  # unpacked

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class TooLarge(ValueError):
    """A body is larger than what is read."""


def unpacked(body: bytes, encoding: str) -> bytes:
    """``body`` without its ``encoding``, a bounded number of bytes. Raises ValueError."""
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise ValueError(f"content-encoding {encoding[:40]} is not known: gzip, or none")
    machine = zlib.decompressobj(wbits=47)  # gzip or zlib, by its head
    try:
        plain = machine.decompress(body, PLAIN_BYTES)
    except zlib.error as error:
        raise ValueError(f"the body is no {encoding}: {error}") from error
    if machine.unconsumed_tail:
        raise TooLarge(f"more than {PLAIN_BYTES:,} bytes unpacked")
    if not machine.eof:
        raise ValueError(f"the body's {encoding} is cut short")
    return plain


def decoded(plain: bytes, kind: str) -> dict[str, Any]:
    """A delivery of logs as an object in the names of OTLP's JSON. Raises ValueError."""
    if kind == PROTOBUF:
        return _from_protobuf(plain)
    try:
        return _decode(plain or b"{}")
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"the body is no JSON object: {error}") from error


def _from_protobuf(plain: bytes) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToDict
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    message = ExportLogsServiceRequest()
    try:
        message.ParseFromString(plain)
        return MessageToDict(message)
    except (DecodeError, RecursionError) as error:
        raise ValueError(f"the body is no protobuf of OTLP: {error}") from error


def answer(rejected: int, reason: str, kind: str) -> bytes:
    """What a delivery is answered with: all is well, or so many records were not taken in."""
    if kind == PROTOBUF:
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
            ExportLogsPartialSuccess,
            ExportLogsServiceResponse,
        )

        if not rejected:
            return b""
        part = ExportLogsPartialSuccess(rejected_log_records=rejected, error_message=reason)
        return ExportLogsServiceResponse(partial_success=part).SerializeToString()
    if not rejected:
        return b"{}"
    said = {"rejectedLogRecords": str(rejected), "errorMessage": reason}
    return msgspec.json.encode({"partialSuccess": said})


def refusal(reason: str, kind: str) -> bytes:
    """What a request is refused with: a ``google.rpc.Status`` with a message."""
    if kind == PROTOBUF:
        text = reason.encode()[:120]  # field 2, a text of less than 128 bytes
        return b"\x12" + bytes([len(text)]) + text
    return msgspec.json.encode({"message": reason})
