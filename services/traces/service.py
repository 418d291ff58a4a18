"""Traces: what tasks went through, told to a collector of OpenTelemetry.

A reader beside the bus. What a collector cannot take now waits, up to a bound, and is sent again;
what ended while nothing ran here is not told: the log has it.
"""

from __future__ import annotations

import logging
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Sequence
from http import HTTPStatus
from http.client import HTTPException

import anyio
import anyio.to_thread

from events.envelope import Event
from projections.state import State
from services.projector import Projector, Setup
from services.runtime.errors import ConfigError
from services.runtime.urls import redacted
from services.traces.journeys import Journeys, Stretch

log = logging.getLogger("asb")

BATCH = 512  # spans in one request
WAITING_MAX = 20_000  # spans that a collector may be behind; older ones are dropped, and counted
PAUSE_S = 1.0
ANSWER_S = 10.0
AGAIN_S = 5.0
_LATER = (
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)  # as OTLP has it: these alone are sent again


class Traces(Projector):
    """Sends the spans of what was committed."""

    def __init__(self, namespace: str, endpoint: str, headers: str) -> None:
        super().__init__()
        self._url = f"{endpoint.rstrip('/')}/v1/traces"
        self._headers = headers_of(headers)
        self._journeys = Journeys(namespace)
        self._waiting: deque[Stretch] = deque()
        self._sent = self._dropped = 0
        self._silent = False

    def feed(self, events: Sequence[Event], state: State) -> None:
        self._waiting += self._journeys.spans(events)
        self._bound()
        if self._waiting:
            self.wake()

    def restored(self, state: State) -> None:
        self._journeys.restored(state)

    def figures(self) -> dict[str, str | int]:
        """For the heartbeat: spans that were sent, wait, and were dropped."""
        return {"sent": self._sent, "waiting": len(self._waiting), "dropped": self._dropped}

    async def flush(self, woken: bool) -> None:
        """Send what waits, a batch at a time."""
        await anyio.sleep(PAUSE_S)
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            if not await self._delivered(batch):
                self._waiting.extendleft(reversed(batch))
                self._bound()
                await anyio.sleep(AGAIN_S)

    def _bound(self) -> None:
        while len(self._waiting) > WAITING_MAX:
            self._waiting.popleft()
            self._dropped += 1

    async def _delivered(self, batch: Sequence[Stretch]) -> bool:
        """Whether these need not be sent again: they were taken, or refused for good."""
        status, reason = await anyio.to_thread.run_sync(self._post, batch, abandon_on_cancel=True)
        if status // 100 == 2:
            self._sent += len(batch)
            self._silent = False
            return True
        if not self._silent:
            log.warning("traces are not taken by %s: %s", redacted(self._url), reason)
        self._silent = True
        if status == 0 or status in _LATER:
            return False
        self._dropped += len(batch)
        return True

    def _post(self, batch: Sequence[Stretch]) -> tuple[int, str]:
        """The answer's status and what it says; 0 where there was none."""
        from services.traces.otlp import request

        headers = {"Content-Type": "application/x-protobuf", **self._headers}
        post = urllib.request.Request(self._url, request(batch), headers)
        try:
            with urllib.request.urlopen(post, timeout=ANSWER_S) as answer:
                return answer.status, ""
        except urllib.error.HTTPError as error:
            return error.code, f"{error.code} {error.reason}"
        except (OSError, HTTPException, ValueError) as error:
            return 0, str(error) or type(error).__name__


def headers_of(text: str) -> dict[str, str]:
    """``name=value,name=value`` as headers, as in OTEL_EXPORTER_OTLP_HEADERS."""
    pairs = (pair.partition("=") for pair in text.split(",") if "=" in pair)
    return {name.strip(): value.strip() for name, _, value in pairs}


def projectors(setup: Setup) -> list[Projector]:
    """What `asb service traces` runs. Raises ConfigError where no collector is named."""
    chosen = setup.settings.traces
    if not chosen.endpoint:
        raise ConfigError(
            "traces need a collector: [traces] endpoint is not set",
            hint="ASB_TRACES_ENDPOINT=http://127.0.0.1:4318, or in the configuration",
        )
    return [Traces(setup.keys.namespace, chosen.endpoint, chosen.headers)]
