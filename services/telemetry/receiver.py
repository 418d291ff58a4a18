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
from http import HTTPStatus
from typing import NamedTuple

import h11

from services.telemetry import otlp
from services.telemetry.calls import ApiCall, calls_of

HOST = "127.0.0.1"
READ_BYTES = HEAD_BYTES = 64 * 1024
AT_ONCE = 32  # connections; the others are asked to come again
IDLE_S = 30.0
RETRY_S = 2
_PATH = re.compile(r"(?:/([A-Za-z0-9_-]{8,100}))?/v1/(logs|traces|metrics)/?")


class Busy(Exception):
    """Raised by whoever takes calls: not now, come again."""


class UnknownToken(Exception):
    """Raised by whoever takes calls: nobody was given this token."""


Take = Callable[[str, tuple[ApiCall, ...]], Awaitable[None]]


class _Request(NamedTuple):
    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def kind(self) -> str:
        kind = self.headers.get("content-type", otlp.JSON)
        return kind.partition(";")[0].strip().lower()


class _Refusal(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Receiver:
    """A receiver that serves; ``url`` is its address without a token."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until it ends."""
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        connection = _Connection(reader, writer)
        try:
            while await self._exchange(connection):
                pass
        except (OSError, TimeoutError, h11.ProtocolError):
            pass  # it is gone, or speaks no HTTP
        finally:
            del self._connections[task]
            writer.close()

    async def _exchange(self, connection: _Connection) -> bool:
        """A request and its answer; False when no other can follow."""
        request = await connection.request()
        if request is None:
            return False
        kind, status, answer = request.kind, 200, b""
        try:
            body = await connection.body()
            self._check(request)
            answer = await self._answer(request, body)
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
        headers = [("content-type", kind if kind == otlp.PROTOBUF else otlp.JSON)]
        headers += [("retry-after", str(RETRY_S))] if status == 429 else []
        return await connection.answer(status, headers, answer)

    def _check(self, request: _Request) -> None:
        if "origin" in request.headers:
            raise _Refusal(403, "not for pages in a browser")
        if not _PATH.fullmatch(request.path):
            raise _Refusal(404, "it is POST /v1/logs")
        if request.method != "POST":
            raise _Refusal(405, "it is POST /v1/logs")
        if request.kind not in (otlp.JSON, otlp.PROTOBUF):
            raise _Refusal(415, f"content-type is {otlp.JSON} or {otlp.PROTOBUF}")
        if len(self._connections) > AT_ONCE:
            raise Busy("too many connections")

    async def _answer(self, request: _Request, body: bytes) -> bytes:
        kind, matched = request.kind, _PATH.fullmatch(request.path)
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
        for writer in self._connections.values():
            writer.close()
        if self._connections:
            await asyncio.wait(self._connections)


@contextlib.asynccontextmanager
async def receiving(take: Take, port: int = 0) -> AsyncGenerator[Receiver]:
    """A receiver on ``port`` (0: any that is free) while the block runs. ``take`` is given a token
    ("": none) and the calls told with it. Raises OSError where the port cannot be had."""
    receiver = Receiver(take)
    server = await asyncio.start_server(receiver.serve, HOST, port)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        await receiver.end()
        await server.wait_closed()


class _Connection:
    """A connection of HTTP/1.1 with a sender."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)

    async def _next(self) -> object:
        """What comes next. Raises TimeoutError, and ProtocolError for what is no HTTP."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                self._writer.write(self._http.send(go_on))
            async with asyncio.timeout(IDLE_S):
                self._http.receive_data(await self._reader.read(READ_BYTES))
        return event

    async def request(self) -> _Request | None:
        """The head of the next request; None when there is no other."""
        event = await self._next()
        if not isinstance(event, h11.Request):
            return None
        headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
        return _Request(event.method.decode(), event.target.decode("latin-1"), headers)

    async def body(self) -> bytes:
        """The body of the request, a bounded number of bytes. Raises TooLarge."""
        body, size = bytearray(), 0
        while isinstance(event := await self._next(), h11.Data):
            size += len(event.data)
            if size <= otlp.BODY_BYTES:
                body += event.data
            elif size > otlp.PLAIN_BYTES:  # until then it is heard out, for it reads no answer
                break
        if size > otlp.BODY_BYTES:
            raise otlp.TooLarge(f"more than {otlp.BODY_BYTES:,} bytes")
        return bytes(body)

    async def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> bool:
        """Send an answer; whether another request may follow: not where one was left unread."""
        whole = self._http.their_state is h11.DONE
        headers = [*headers, ("content-length", str(len(body)))]
        headers += [] if whole else [("connection", "close")]
        for event in (
            h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self._writer.write(self._http.send(event) or b"")
        await self._writer.drain()
        if self._http.our_state is not h11.DONE or not whole:
            return False
        self._http.start_next_cycle()
        return True
