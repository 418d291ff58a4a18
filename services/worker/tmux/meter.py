"""What an agent in a session tells of its own calls: the second meter, beside its transcript.

Both name a call by the provider's id of the request, so each counts once, whichever told it.
Telemetry alone tells of calls that stand in no transcript, such as that of a compaction. Where the
provider gives none (behind some gateways) the two cannot be matched: then the transcript counts.
"""

from __future__ import annotations

import time

from services.telemetry.calls import ApiCall
from services.worker.telemetry import CALLS_MAX, CallMeter
from services.worker.tmux.turns import Calls

LATE_S = 10.0  # how long a call may wait for its turn to be known


class SessionMeter(CallMeter):
    """The calls of one session that are not accounted for yet. ``url``: where its agent sends them
    ("" where nothing receives)."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: dict[str, tuple[float, ApiCall]] = {}
        self._matches = False  # whether a call was seen that both name alike

    def take(self, calls: tuple[ApiCall, ...]) -> None:
        now = time.monotonic()
        for call in calls:
            if len(self._waiting) < CALLS_MAX:
                self._waiting.setdefault(call.request, (now, call))

    def of_prompt(self, prompt: str) -> Calls:
        """Those that were made for a prompt, by its id."""
        calls = (call for _, call in self._waiting.values())
        return _by_name([call for call in calls if prompt and call.prompt == prompt])

    def forget(self, prompt: str) -> None:
        """Those of a prompt are accounted for."""
        for name in self.of_prompt(prompt):
            del self._waiting[name]

    def strangers(self, seen: set[str], prompt: str) -> Calls:
        """Those that nobody accounts for, each once: in no transcript (``seen`` are in one) and of
        another prompt than ours."""
        late = time.monotonic() - LATE_S
        self._matches = self._matches or not seen.isdisjoint(self._waiting)
        over = [
            (name, call)
            for name, (arrived, call) in self._waiting.items()
            if (name in seen or arrived < late) and not (prompt and call.prompt == prompt)
        ]
        for name, _ in over:
            del self._waiting[name]
        return _by_name([call for name, call in over if name not in seen and self._matches])


def _by_name(calls: list[ApiCall]) -> Calls:
    """Calls in the words of the transcript."""
    return {
        call.request: (
            call.model,
            {
                "input_tokens": call.parts.input_tokens,
                "output_tokens": call.parts.output_tokens,
                "cache_read_input_tokens": call.parts.cache_read_tokens,
                "cache_creation_input_tokens": call.parts.cache_write_tokens,
            },
        )
        for call in calls
    }
