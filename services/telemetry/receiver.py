"""The receiver of telemetry: OTLP by HTTP, on loopback alone.

``POST /v1/logs`` is read; traces and metrics are answered and thrown away. Before ``/v1`` a token
may stand (``/TOKEN/v1/logs``), since not every agent can send a header of ours; a header
``authorization: Bearer TOKEN`` says the same. A page in a browser cannot reach it: requests that
carry an ``origin`` are refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import NamedTuple

from services.telemetry import otlp
from services.telemetry.calls import ApiCall, calls_of

HOST = "127.0.0.1"
HEAD_BYTES = 64 * 1024
AT_ONCE = 32  # connections; the others are asked to come again
IDLE_S = 30.0
RETRY_S = 2
_PATH = re.compile(r"(?:/([A-Za-z0-9_-]{8,100}))?/v1/(logs|traces|metrics)/?")
_PHRASES = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found",
            405: "Method Not Allowed", 413: "Content Too Large", 415: "Unsupported Media Type",
            429: "Too Many Requests"}  # fmt: skip


class Busy(Exception):
    """Raised by whoever takes calls: not now, come again."""


class UnknownToken(Exception):
    """Raised by whoever takes calls: nobody was given this token."""


Take = Callable[[str, tuple[ApiCall, ...]], Awaitable[None]]


class _Request(NamedTuple):
    method: str
    path: str
    headers: Mapping[str, str]


class _Refusal(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Receiver:
    """A receiver that serves; ``url`` is its address without a token."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until it ends."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, EOFError, ValueError, TimeoutError, asyncio.LimitOverrunError):
            pass  # it is gone, or speaks no HTTP
        finally:
            self._connections.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """A request and its answer; False when no other can follow."""
        async with asyncio.timeout(IDLE_S):
            request = await _head(reader)
        kind = request.headers.get("content-type", otlp.JSON).partition(";")[0].strip().lower()
        status, answer = 200, b""
        whole = False  # whether the request was read to its end
        try:
            self._check(request, kind)
            async with asyncio.timeout(IDLE_S):
                body = await _body(reader, writer, request.headers)
            whole = True
            answer = await self._answer(request, kind, body)
        except Busy as error:
            status, answer = 429, otlp.refusal(str(error) or "come again", kind)
        except UnknownToken:
            status, answer = 404, otlp.refusal("no attempt with this token runs here", kind)
        except otlp.TooLarge as error:
            status, answer = 413, otlp.refusal(str(error), kind)
        except _Refusal as error:
            status, answer = error.status, otlp.refusal(str(error), kind)
        except ValueError as error:
            status, answer = 400, otlp.refusal(str(error), kind)
        goes_on = whole and request.headers.get("connection", "").lower() != "close"
        shown = kind if kind == otlp.PROTOBUF else otlp.JSON
        lines = [f"HTTP/1.1 {status} {_PHRASES[status]}", f"content-type: {shown}",
                 f"content-length: {len(answer)}"]  # fmt: skip
        lines += [f"retry-after: {RETRY_S}"] if status == 429 else []
        lines += [] if goes_on else ["connection: close"]
        writer.write("\r\n".join([*lines, "", ""]).encode() + answer)
        await writer.drain()
        return goes_on

    def _check(self, request: _Request, kind: str) -> None:
        if "origin" in request.headers:
            raise _Refusal(403, "not for pages in a browser")
        if not _PATH.fullmatch(request.path):
            raise _Refusal(404, "it is POST /v1/logs")
        if request.method != "POST":
            raise _Refusal(405, "it is POST /v1/logs")
        if kind not in (otlp.JSON, otlp.PROTOBUF):
            raise _Refusal(415, f"content-type is {otlp.JSON} or {otlp.PROTOBUF}")
        if len(self._connections) > AT_ONCE:
            raise Busy("too many connections")

    async def _answer(self, request: _Request, kind: str, body: bytes) -> bytes:
        matched = _PATH.fullmatch(request.path)
        assert matched is not None
        if matched[2] != "logs":
            return b"" if kind == otlp.PROTOBUF else b"{}"
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        plain = otlp.unpacked(body, request.headers.get("content-encoding", "").lower())
        batch = calls_of(otlp.decoded(plain, kind))
        await self._take(matched[1] or bearer, batch.calls)
        return otlp.answer(batch.rejected, batch.reason, kind)

    async def end(self) -> None:
        """End what is connected."""
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


@contextlib.asynccontextmanager
async def receiving(take: Take, port: int = 0) -> AsyncGenerator[Receiver]:
    """A receiver on ``port`` (0: any that is free) while the block runs. ``take`` is given a token
    ("": none) and the calls told with it. Raises OSError where the port cannot be had."""
    receiver = Receiver(take)
    server = await asyncio.start_server(receiver.serve, HOST, port, limit=HEAD_BYTES)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        await receiver.end()
        await server.wait_closed()


# -- HTTP, as much as exporters use ---------------------------------------------------------------


async def _head(reader: asyncio.StreamReader) -> _Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    method, path, _ = first.split(" ", 2)
    pairs = (line.partition(":") for line in lines if ":" in line)
    return _Request(method, path, {name.strip().lower(): value.strip() for name, _, value in pairs})


async def _body(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: Mapping[str, str]
) -> bytes:
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return await _chunks(reader)
    length = int(headers.get("content-length") or 0)
    if not 0 <= length <= otlp.BODY_BYTES:
        raise otlp.TooLarge(f"more than {otlp.BODY_BYTES:,} bytes")
    return await reader.readexactly(length)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    pieces: list[bytes] = []
    room = otlp.BODY_BYTES
    while size := int((await reader.readline()).partition(b";")[0], 16):
        room -= size
        if room < 0 or size < 0:
            raise otlp.TooLarge(f"more than {otlp.BODY_BYTES:,} bytes")
        pieces.append(await reader.readexactly(size))
        await reader.readexactly(2)
    while (await reader.readline()).strip():
        pass  # what follows the last chunk
    return b"".join(pieces)
