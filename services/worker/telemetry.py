"""What the agents of this worker tell of themselves while they run: a receiver of their telemetry.

One receiver a process, on a free port of loopback, while attempts run. Each attempt has a token of
its own in its agent's environment, so that what is told is that attempt's and no other's. Every
call counts once, however often it is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from events.tokens import TokenParts
from services.telemetry.calls import ApiCall

if TYPE_CHECKING:
    from services.telemetry.receiver import Receiver

log = logging.getLogger("asb.worker")

CALLS_MAX = 100_000  # whose names one attempt keeps


class CallMeter:
    """The calls of one attempt, added up by model. ``url``: where its agent sends them ("" where
    nothing receives)."""

    def __init__(self, url: str = "") -> None:
        self.url = url
        self._requests: set[str] = set()
        self._models: dict[str, TokenParts] = {}

    def take(self, calls: tuple[ApiCall, ...]) -> None:
        for call in calls:
            if call.request in self._requests or len(self._requests) >= CALLS_MAX:
                continue
            self._requests.add(call.request)
            before = self._models.get(call.model, TokenParts())
            self._models[call.model] = before.plus(call.parts)

    @property
    def usage(self) -> dict[str, Any] | None:
        """All calls so far, by model; None where none was told."""
        if not self._models:
            return None
        return {"models": {n: asdict(parts) for n, parts in self._models.items()}}

    @property
    def model(self) -> str:
        """The one that did most of the work, "" for none."""
        models = self._models
        return max(models, key=lambda name: models[name].whole) if models else ""


class WorkerTelemetry:
    """The worker's receiver: it serves while at least one attempt runs. ``port``: where, if that is
    free; 0 for any."""

    def __init__(self, port: int = 0) -> None:
        self._port = port
        self._meters: dict[str, CallMeter] = {}
        self._serving: contextlib.AsyncExitStack | None = None
        self._receiver: Receiver | None = None
        self._starting = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def attempt(self) -> AsyncGenerator[CallMeter]:
        """The meter of an attempt, while it runs. Where no port can be had it never says
        anything: the agent's own result is the first source, this the second."""
        meter = CallMeter()
        async with self.serving(meter, secrets.token_urlsafe(18)):
            yield meter

    @contextlib.asynccontextmanager
    async def serving(self, meter: CallMeter, token: str) -> AsyncGenerator[None]:
        """Let ``meter`` have what is sent under ``token``, which nobody else may know."""
        self._meters[token] = meter
        try:
            async with self._starting:
                receiver = await self._started()
            if receiver is not None:
                meter.url = f"{receiver.url}/{token}"
            yield
        finally:
            del self._meters[token]
            if not self._meters and self._serving is not None:
                serving, self._serving, self._receiver = self._serving, None, None
                await serving.aclose()

    async def _started(self) -> Receiver | None:
        if self._serving is not None:
            return self._receiver
        from services.telemetry.receiver import receiving  # only agents' workers need HTTP

        self._serving = stack = contextlib.AsyncExitStack()
        for port in dict.fromkeys((self._port, 0)):
            try:
                self._receiver = await stack.enter_async_context(receiving(self._take, port))
                break
            except OSError as error:
                if not port:
                    log.warning("no telemetry of agents is received: %s", error)
        return self._receiver

    async def _take(self, token: str, calls: tuple[ApiCall, ...]) -> None:
        meter = self._meters.get(token)
        if meter is None:
            from services.telemetry.receiver import UnknownToken

            raise UnknownToken
        meter.take(calls)
