"""The receiver of telemetry over real connections, and the service that writes it to the bus."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from events.keys import Keys
from services.runtime.errors import AsbError
from services.runtime.settings import load
from services.store.client import Client
from services.telemetry import otlp
from services.telemetry.calls import ApiCall
from services.telemetry.receiver import HOST, Busy, Receiver, UnknownToken, receiving
from services.telemetry.service import TelemetryService
from services.worker.telemetry import WorkerTelemetry
from tests.agents import telemetry as otel
from tests.ports import free_port
from tests.wait import wait_until

pytestmark = pytest.mark.anyio
LOGS = "/v1/logs"


class Answer:
    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = dict(line.split(": ", 1) for line in lines)


async def send(port: int, path: str, body: bytes, method: str = "POST", **headers: str) -> Answer:
    """One request on a connection of its own."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    lines = {
        "host": HOST,
        "content-type": otlp.JSON,
        "content-length": str(len(body)),
        "connection": "close",
    }
    lines |= named
    if "chunked" in named.get("transfer-encoding", ""):
        del lines["content-length"]
        half = len(body) // 2
        pieces = (body[:half], body[half:], b"")
        body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    reader, writer = await asyncio.open_connection(HOST, port)
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
    raw = await reader.read()
    writer.close()
    await writer.wait_closed()
    return Answer(raw)


def as_json(*records: dict[str, Any]) -> bytes:
    return json.dumps(otel.delivery(*records)).encode()


class Taken:
    def __init__(self) -> None:
        self.calls: list[tuple[str, ApiCall]] = []
        self.error: Exception | None = None

    async def take(self, token: str, calls: tuple[ApiCall, ...]) -> None:
        if self.error is not None:
            raise self.error
        self.calls += [(token, call) for call in calls]


async def test_every_way_of_sending_arrives() -> None:
    taken = Taken()
    binary = ParseDict(otel.delivery(otel.claude()), ExportLogsServiceRequest()).SerializeToString()
    async with receiving(taken.take) as receiver:
        port = receiver.port
        answers = [
            await send(port, LOGS, as_json(otel.claude())),
            await send(port, "/token-of-mine/v1/logs", as_json(otel.claude())),
            await send(port, LOGS, as_json(otel.claude()), authorization="Bearer token-of-mine"),
            await send(port, LOGS, gzip.compress(as_json(otel.claude())), content_encoding="gzip"),
            await send(port, LOGS, as_json(otel.claude()), transfer_encoding="chunked"),
            await send(port, LOGS, binary, content_type=otlp.PROTOBUF),
        ]
    assert [(a.status, a.body) for a in answers] == [(200, b"{}")] * 5 + [(200, b"")]
    assert [token for token, _ in taken.calls] == ["", "token-of-mine", "token-of-mine", "", "", ""]
    assert len({call for _, call in taken.calls}) == 1


async def test_a_connection_is_kept_for_the_next_delivery() -> None:
    taken = Taken()
    async with receiving(taken.take) as receiver:
        reader, writer = await asyncio.open_connection(HOST, receiver.port)
        body = as_json(otel.claude())
        request = (
            f"POST {LOGS} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        for _ in range(2):
            writer.write(request)
            assert b"200 OK" in await reader.readuntil(b"{}")
        writer.close()
        await writer.wait_closed()
    assert len(taken.calls) == 2


async def test_part_of_a_delivery_can_be_rejected() -> None:
    taken = Taken()
    async with receiving(taken.take) as receiver:
        body = as_json(otel.claude(input_tokens="many"), otel.claude("req_2"))
        answer = await send(receiver.port, LOGS, body)
    assert answer.status == 200
    assert json.loads(answer.body)["partialSuccess"]["rejectedLogRecords"] == "1"
    assert [call.request for _, call in taken.calls] == ["req_2"]


async def test_traces_and_metrics_are_thrown_away() -> None:
    taken = Taken()
    async with receiving(taken.take) as receiver:
        for path in ("/v1/traces", "/v1/metrics"):
            answer = await send(receiver.port, path, b"what stands here nobody reads")
            assert (answer.status, answer.body) == (200, b"{}")
    assert taken.calls == []


@pytest.mark.parametrize(
    ("status", "request_line"),
    [
        (400, {"body": b"no json"}),
        (403, {"origin": "http://a.page"}),
        (404, {"path": "/v2/logs"}),
        (405, {"method": "GET"}),
        (413, {"body": bytes(otlp.BODY_BYTES + 1)}),
        (415, {"content_type": "text/plain"}),
    ],
)
async def test_what_is_wrong_is_refused(status: int, request_line: dict[str, Any]) -> None:
    given: dict[str, Any] = {"path": LOGS, "body": b"{}", **request_line}
    async with receiving(Taken().take) as receiver:
        answer = await send(receiver.port, **given)
    assert answer.status == status
    assert json.loads(answer.body)["message"]


async def test_a_receiver_that_is_busy_says_when_to_come_again() -> None:
    taken = Taken()
    async with receiving(taken.take) as receiver:
        taken.error = Busy("later")
        answer = await send(receiver.port, LOGS, b"{}")
        assert (answer.status, int(answer.headers["retry-after"]) > 0) == (429, True)
        taken.error = UnknownToken()
        assert (await send(receiver.port, "/another-token/v1/logs", b"{}")).status == 404


async def test_attempts_that_begin_at_once_share_a_receiver_and_no_token() -> None:
    own = WorkerTelemetry()
    async with contextlib.AsyncExitStack() as running:
        begun = (running.enter_async_context(own.attempt()) for _ in range(3))
        meters = await asyncio.gather(*begun)
        ports = {meter.url.partition("127.0.0.1:")[2].partition("/")[0] for meter in meters}
        assert len(ports) == 1
        port, token = int(ports.pop()), meters[1].url.rpartition("/")[2]
        assert (await send(port, f"/{token}/v1/logs", as_json(otel.claude()))).status == 200
        assert (await send(port, "/another-token/v1/logs", as_json(otel.claude()))).status == 404
        assert [meter.usage is None for meter in meters] == [True, False, True]
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(HOST, port)


# -- the service -------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def serving(client: Client, keys: Keys) -> AsyncGenerator[TelemetryService]:
    service = TelemetryService(client, keys, load({"telemetry.port": 0}, environ={}))
    async with anyio.create_task_group() as group:
        group.start_soon(service.run)
        await wait_until(lambda: service.port)
        yield service
        group.cancel_scope.cancel()


async def test_calls_become_foreign_work_under_the_names_of_their_requests(
    client: Client, keys: Keys
) -> None:
    async with serving(client, keys) as service:
        for _ in range(2):
            body = as_json(otel.claude(), *otel.codex(), otel.gemini())
            assert (await send(service.port, LOGS, body)).status == 200
        assert service.figures() == {"listens": f"{HOST}:{service.port}", "calls": 6}
    entries = await client.call("XRANGE", keys.main_intake, "-", "+")
    rows = [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in entries]
    assert len(rows) == 6
    assert len({row[b"id"] for row in rows}) == 3
    assert rows[0] == rows[3]
    said = json.loads(rows[0][b"data"])
    assert (said["agent"], said["meter"]) == ("claude", "telemetry")
    assert "task" not in said
    assert otel.SECRET_WORDS.encode() not in b"".join(b"".join(row.values()) for row in rows)


async def test_while_redis_is_away_the_sender_keeps_it(keys: Keys) -> None:
    nowhere = Client(f"redis://127.0.0.1:{free_port()}")
    async with serving(nowhere, keys) as service:
        answer = await send(service.port, LOGS, as_json(otel.claude()))
    await nowhere.close()
    assert answer.status == 429
    assert "retry-after" in answer.headers


async def test_a_port_that_is_taken_is_said(client: Client, keys: Keys) -> None:
    async with receiving(Taken().take) as other:
        settings = load({"telemetry.port": other.port}, environ={})
        with pytest.raises(AsbError, match=f"port {other.port}"):
            await TelemetryService(client, keys, settings).run()
    assert isinstance(other, Receiver)
