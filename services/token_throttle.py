"""The token throttle under its first name.

from services.token_throttle import TokenThrottle

throttle = TokenThrottle()
throttle.record_usage("worker1", 1500, 0.0045, "sonnet")
throttle.status()["levels"]
"""

from __future__ import annotations

from typing import Any

from events.money import nanos_of
from services.client.bus import BusUser
from services.queries.status import throttle_view
from services.runtime.errors import Refused

__all__ = ["TokenThrottle"]


class TokenThrottle(BusUser):
    """Tells a running bus of usage it did not dispatch, and asks how the limits stand."""

    def record_usage(
        self,
        worker: str,
        tokens: int,
        cost: float | str | None = None,
        model: str = "",
        *,
        agent: str = "",
    ) -> str:
        """Book ``tokens`` on ``worker`` (and its agent); the intake entry id.

        ``cost`` in dollars counts where the model's price is not known; otherwise the price book
        does. Raises Refused for what is no amount.
        """
        if isinstance(tokens, bool) or tokens < 0:
            raise Refused(f"{tokens!r} is no number of tokens", hint="nothing was charged")
        data: dict[str, object] = {
            "agent": agent or worker,
            "worker": worker,
            "total_tokens": tokens,
            "model": model,
        }
        if cost is not None:
            try:
                if nanos_of(cost) < 0:
                    raise ValueError(f"{cost!r} is less than nothing")
            except ValueError as error:
                raise Refused(str(error), hint="nothing was charged") from error
            data["cost_usd"] = cost
        return self._bus.send("usage.recorded", data)

    def status(self) -> dict[str, Any]:
        """Every limited window of every scope and the level of each: ``asb throttle --json``."""
        return throttle_view(self._bus.state(), self._bus.now())
