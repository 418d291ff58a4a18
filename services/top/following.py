"""The thread that watches a bus for `asb top`: newest scenes as they come, past ones on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from services.client.bus import Bus, opened
from services.projector import PAUSE_S
from services.queries.watching import FleetWatch, Scene
from services.runtime.errors import AsbError
from services.runtime.settings import Settings

FRAME_S = 0.25  # at most four pictures a second
IDLE_MS = 1_000  # without news a picture a second: countdowns go on
AGAIN_S = 0.5


class Following:
    """Follows the bus that ``settings`` name and gives every scene to ``show``; ``away`` is told
    why it cannot, and `show` gets, with the first scene after that, what was missed."""

    def __init__(
        self,
        settings: Settings,
        show: Callable[[Scene, str], object],
        away: Callable[[str], object],
    ) -> None:
        self._settings, self._show, self._away = settings, show, away
        self._ends = threading.Event()
        self._seen: tuple[int, float] | None = None  # events, and when

    def end(self) -> None:
        self._ends.set()

    def run(self) -> None:
        """Until the end; a bus that is not there is waited for."""
        while not self._ends.is_set():
            try:
                with opened(self._settings) as bus:
                    self._follow(bus)
            except AsbError as error:
                self._away(str(error).splitlines()[0])
            self._ends.wait(AGAIN_S)

    def _follow(self, bus: Bus) -> None:
        watch, back, first = FleetWatch(bus), 0, True
        while not self._ends.is_set():
            scene = watch.look()
            missed = self._missed(scene) if first else ""
            if watch.went_back > back:
                missed = "the log went back: what was seen of it since is forgotten"
            back, first = watch.went_back, False
            self._seen = scene.overview.events, time.monotonic()
            self._show(scene, missed)
            self._wait(bus, scene.overview.as_of)

    def _missed(self, scene: Scene) -> str:
        if self._seen is None:
            return ""
        events, at = self._seen
        gone = max(0, scene.overview.events - events)
        return f"back after {time.monotonic() - at:.0f} s: {gone:,} events meanwhile"

    def _wait(self, bus: Bus, log_id: str) -> None:
        """Until there are news, or a second has passed."""
        self._ends.wait(FRAME_S)
        reply: Any = bus.client.call(
            "XREAD", "COUNT", 1, "BLOCK", IDLE_MS, "STREAMS", bus.keys.log, log_id
        )
        if reply:
            self._ends.wait(PAUSE_S)  # more of the same turn
