"""Sessions of agents that asb did not start: what their telemetry tells is foreign work.

A delivery is answered when its calls stand at the intake, each under the name of its request: told
again, by whomever, it changes nothing. While Redis is away, or a worker of this bus is asked for
more than it can keep up with, the sender is told to come again.
"""

from __future__ import annotations

import logging

import anyio
import msgspec

from events.keys import Keys
from services.projector import Projector, Setup
from services.runtime.errors import AsbError, CommandRefused, RedisUnavailable
from services.runtime.settings import Settings
from services.store.client import Client
from services.telemetry.calls import ApiCall
from services.telemetry.receiver import Busy, receiving

log = logging.getLogger("asb")

METER = "telemetry"
BATCH = 500  # entries in one pipeline
UNDER_WAY = 4  # deliveries that are written at once; the others are told to come again


class TelemetryService(Projector):
    """Serves, and writes what it is told to the shared intake."""

    def __init__(self, client: Client, keys: Keys, settings: Settings) -> None:
        super().__init__()
        self._client, self._intake = client, keys.main_intake
        self._wanted = settings.telemetry.port
        self._under_way = 0
        self.port = 0
        self.calls = 0

    def figures(self) -> dict[str, str | int]:
        """For the heartbeat: where it listens, and how many calls it was told of."""
        return {"listens": f"127.0.0.1:{self.port}", "calls": self.calls} if self.port else {}

    async def run(self) -> None:
        """Serve until cancelled. Raises AsbError where its port is taken."""
        try:
            async with receiving(self._take, self._wanted) as receiver:
                self.port = receiver.port
                log.info("telemetry at %s/v1/logs", receiver.url)
                await anyio.sleep_forever()
        except OSError as error:
            raise AsbError(
                f"the telemetry receiver cannot listen on port {self._wanted}: {error.strerror}",
                hint="another collector may run there; choose a port: ASB_TELEMETRY_PORT",
            ) from error
        finally:
            self.port = 0

    async def _take(self, _token: str, calls: tuple[ApiCall, ...]) -> None:
        if self._under_way >= UNDER_WAY:
            raise Busy("too many deliveries at once")
        self._under_way += 1
        try:
            for start in range(0, len(calls), BATCH):
                await self._write(calls[start : start + BATCH])
        except (RedisUnavailable, CommandRefused) as error:
            raise Busy("the bus takes nothing now") from error
        finally:
            self._under_way -= 1

    async def _write(self, calls: tuple[ApiCall, ...]) -> None:
        fields = ("type", "usage.recorded", "data")
        replies = await self._client.pipeline(
            [
                ("XADD", self._intake, "*", *fields, entry_of(call), "id", id_of(call))
                for call in calls
            ]
        )
        refused = next((reply for reply in replies if isinstance(reply, CommandRefused)), None)
        if refused is not None:
            raise refused
        self.calls += len(calls)


def id_of(call: ApiCall) -> str:
    """The idempotency key of a call."""
    return f"{call.agent}:{call.request}"[:200]


def entry_of(call: ApiCall) -> bytes:
    """A call as a report of foreign work."""
    report: dict[str, object] = {
        "agent": call.agent,
        "model": call.model,
        "meter": METER,
        "usage": msgspec.structs.asdict(call.parts),
        "agent_session": call.session,
    }
    if call.cost_usd is not None:
        report["cost_usd"] = call.cost_usd
    return msgspec.json.encode(report)


def projectors(setup: Setup) -> list[Projector]:
    """What the telemetry service runs."""
    return [TelemetryService(setup.client, setup.keys, setup.settings)]
