"""The token throttle under its first name.

from services.token_throttle import throttler

throttler.record_usage("worker1", 1500, 0.0045, "sonnet")
if throttler.allow_request("worker1", 4000):
    ...
throttler.get_stats()["global"]["level"]

``throttler`` opens the bus when it is first used, and raises AsbError where none runs.
"""

from __future__ import annotations

import functools
from typing import Any, cast

import msgspec

from events.money import hold_nanos, nanos_of
from events.policy import UNITS
from events.task import PRIORITIES
from projections import budgets
from projections.format import refusal_text
from projections.prices import hold_price
from projections.scopes import scope_keys
from services.client.bus import BusUser
from services.queries.status import throttle_stats, throttle_view
from services.runtime.errors import Refused

__all__ = ["Advice", "TokenThrottle", "get_throttler", "throttler"]


class Advice(msgspec.Struct, frozen=True):
    """Whether a request fits now; true or false in a condition. ``reason`` names the limit that
    it does not fit below ("" where it fits), ``level`` is the strictest of those it touches."""

    allowed: bool
    reason: str
    level: str

    def __bool__(self) -> bool:
        return self.allowed


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

    def allow_request(
        self,
        worker: str,
        tokens: int,
        priority: str = "normal",
        *,
        model: str = "",
        agent: str = "",
        project: str = "",
    ) -> Advice:
        """Whether ``tokens`` more fit below every limit. Advice: nothing is held by it, and only
        what is submitted as a task is held to it. Raises Refused for an unknown priority."""
        if priority not in PRIORITIES:
            raise Refused(
                f"{priority!r} is none of {', '.join(PRIORITIES)}", hint="give one of them"
            )
        state, now, rank = self._bus.state(), self._bus.now(), PRIORITIES.index(priority)
        keys = scope_keys(worker, agent, model, project)
        asked = (tokens, hold_nanos(tokens, hold_price(state, model)), 1)
        refusal = budgets.refusal(state, keys, rank, asked, now)
        level = budgets.LEVELS[max(budgets.scope_level(state, key, now) for key in keys)]
        if refusal is None:
            return Advice(True, "", level)
        amount = asked[UNITS.index(refusal.unit)]
        return Advice(False, refusal_text(refusal, rank, amount, now), level)

    def get_stats(self, worker: str | None = None) -> dict[str, Any]:
        """``global`` and ``workers`` (by name), or those of one ``worker``: ``level``,
        ``tokens_hour``, ``tokens_day``, ``tokens_month``, ``cost_hour``, ``cost_day``,
        ``cost_month`` (dollars) and ``held_tokens``, of calendar windows in UTC."""
        return throttle_stats(self._bus.state(), self._bus.now(), worker)

    def status(self) -> dict[str, Any]:
        """Every limited window of every scope and the level of each: ``asb throttle --json``."""
        return throttle_view(self._bus.state(), self._bus.now())


@functools.cache
def get_throttler() -> TokenThrottle:
    """The shared instance, opened at the first call. Raises AsbError where no bus runs."""
    return TokenThrottle()


class _Shared:
    """Stands for the shared instance until somebody asks something of it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(get_throttler(), name)


throttler = cast("TokenThrottle", _Shared())
