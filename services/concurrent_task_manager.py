"""The task manager under its first name.

from services.concurrent_task_manager import ConcurrentTaskManager

manager = ConcurrentTaskManager()
manager.add_task("Write documentation for the API")
manager.distribute_tasks()
print(manager.status())

It asks a running bus; dispatch is continuous there, so ``distribute_tasks`` says what has moved.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from events.harmless import harmless
from projections.state import State
from services.client.bus import BusUser
from services.client.submissions import BadLine, Checker, send
from services.queries.figures import running_count, waiting_count
from services.queries.status import prompts, running_texts
from services.runtime import initial_policy
from services.runtime.errors import Refused
from services.runtime.settings import Settings
from services.screens.status import Shown, metrics_screen, status_screen, throttle_screen
from services.task_delegator import get_delegator
from services.token_throttle import TokenThrottle

__all__ = ["ConcurrentTaskManager", "Moved"]

WORKERS = ("concurrent_worker1", "concurrent_worker2", "concurrent_worker3")
SHOWN = Shown(absent=WORKERS)  # these are expected, and shown as absent while no worker is there


class Moved(msgspec.Struct, frozen=True):
    """What has moved since the last look, and how things stand."""

    dispatched: int
    completed: int
    failed: int
    waiting: int
    running: int

    def __str__(self) -> str:
        return (
            f"Since the last look: {self.dispatched:,} dispatched, {self.completed:,} completed, "
            f"{self.failed:,} failed. Now: {self.waiting:,} in the queue, {self.running:,} running."
        )


class ConcurrentTaskManager(BusUser):
    """Adds tasks to the running bus and shows how it fares. Raises AsbError where none runs."""

    def __init__(
        self,
        redis_url: str | None = None,
        namespace: str | None = None,
        settings: Settings | None = None,
    ) -> None:
        super().__init__(redis_url, namespace, settings)
        self._seen = self._counts(self._bus.state())
        self._throttle = TokenThrottle(bus=self._bus)

    def add_task(self, text: str, **options: Any) -> str:
        """Submit ``text``; its task id. ``options`` as on the command line: priority, kind, …

        Raises Refused for what cannot be a task.
        """
        checker = Checker(options, initial_policy.defaults(self._bus.settings))
        checked = next(iter(checker.texts([text])))
        if isinstance(checked, BadLine):
            raise Refused(checked.error, hint="nothing was submitted")
        entry = next(iter(send(self._bus, [checked])))
        return checked.task or entry

    def distribute_tasks(self) -> Moved:
        """What the bus has distributed since the last call (or since this manager began)."""
        state = self._bus.state()
        now, before = self._counts(state), self._seen
        self._seen = now
        return Moved(
            now[0] - before[0],
            now[1] - before[1],
            now[2] - before[2],
            waiting_count(state),
            running_count(state),
        )

    def record_task_completion(
        self, worker: str, task: str, tokens: int | None = None, model: str = ""
    ) -> str:
        """Tell of a ``task`` (its text) that ``worker`` has done outside of the bus; the intake
        entry id. Without ``tokens`` its estimate is charged. What the bus gave out, its workers
        tell of themselves. Raises Refused for what is no amount."""
        used = self.estimate_task_tokens(task) if tokens is None else tokens
        if used < 0:
            raise Refused(f"{used} is no number of tokens", hint="nothing was charged")
        data: dict[str, object] = {
            "agent": worker,
            "worker": worker,
            "total_tokens": used,
            "model": model,
        }
        return self._bus.send("usage.recorded", data)

    def estimate_task_tokens(self, task: str) -> int:
        """What a task may take, before anything is known of its kind: a token for four characters,
        and a thousand."""
        return get_delegator().delegate_task(task).estimated_tokens

    def check_throttle_limit(self, worker: str, tokens: int, priority: str = "normal") -> bool:
        """Whether ``tokens`` more of ``worker`` fit below every limit now. Advice, no hold."""
        fits = self._throttle.allow_request(worker, tokens, priority)
        return fits.allowed

    def get_throttle_stats(self) -> dict[str, Any]:
        """``global`` and ``workers``, with the keys of `TokenThrottle.get_stats`."""
        return self._throttle.get_stats()

    def status(self) -> str:
        """The status screen."""
        state = self._bus.state()
        texts = prompts(self._bus, running_texts(state))
        return status_screen(state, self._bus.now(), texts, SHOWN)

    def metrics(self) -> str:
        """The metrics screen."""
        return metrics_screen(self._bus.state(), SHOWN)

    def throttle(self) -> str:
        """The throttle screen."""
        return throttle_screen(self._bus.state(), self._bus.now(), SHOWN)

    def print_status(self) -> None:
        """The status screen, on standard output."""
        sys.stdout.write(harmless(self.status()) + "\n")

    def print_metrics(self) -> None:
        """The metrics screen, on standard output."""
        sys.stdout.write(harmless(self.metrics()) + "\n")

    def print_throttle_status(self) -> None:
        """The throttle screen, on standard output."""
        sys.stdout.write(harmless(self.throttle()) + "\n")

    def _counts(self, state: State) -> tuple[int, int, int]:
        dispatched = sum(worker.dispatched for worker in state.workers.values())
        return dispatched, state.meta.completed, state.meta.failed
