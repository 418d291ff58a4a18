"""What an attempt is charged at. PURE; used wherever an attempt ends."""

from __future__ import annotations

from typing import TypeAlias

from msgspec.structs import replace

from events.money import BOOK, cost_nanos
from events.task import Charge
from events.tokens import NOTHING, Reading, TokenParts
from projections.prices import price_of, quote
from projections.records import PastAttempt, TaskRecord
from projections.state import State
from services.decider import Defaults

ByModel: TypeAlias = tuple[tuple[str, TokenParts], ...]


def charge(
    state: State,
    *,
    agent: str,
    model: str,
    usage: TokenParts,
    own_cost: int | None = None,
    fallback_nanos: int = 0,
    models: ByModel = (),
) -> Charge:
    """``usage`` priced by the book, by the ``models`` that were really used where they are told.
    An unknown price takes the agent's own figure, else ``fallback_nanos`` (the hold), and is
    flagged."""
    weight = state.policy.cache_read_weight_percent
    priced = _priced(state, models or ((model, usage),), weight)
    if priced is not None:
        nanos, source = priced
    elif own_cost is not None:
        nanos, source = own_cost, "agent"
    else:
        nanos, source = fallback_nanos, "unknown"
    return Charge(
        agent=agent,
        model=model,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        tokens=usage.counted(weight),
        nanos=nanos,
        book=state.policy.book,
        unpriced=priced is None and own_cost is None,
        price="" if source == BOOK else source,
    )


def _priced(state: State, models: ByModel, weight: int) -> tuple[int, str] | None:
    """What these parts cost, and who named the prices; None where one of them is not known."""
    nanos, sources = 0, dict[str, None]()
    for model, parts in models:
        quoted = quote(state, model)
        if quoted is None:
            return None
        nanos += cost_nanos(parts, quoted.price, weight)
        sources[quoted.source] = None
    if len(sources) > 1:
        sources.pop(BOOK, None)
    return nanos, ", ".join(sources)


_RANKS = {"telemetry": 1, "transcript": 2, "stream": 3, "progress": 4, "estimate": 5}


def rank(meter: str) -> int:
    """How good a meter is, 0 the best; what we do not know speaks for its agent."""
    return _RANKS.get(meter, 0)


def final_charge(
    state: State,
    task: TaskRecord,
    reading: Reading = NOTHING,
    *,
    model: str = "",
    own_cost: int | None = None,
    meter: str = "driver",
    running: bool = False,
) -> Charge:
    """What the running attempt is charged: its usage less what was charged before, up to the
    plausibility bound, or, when nobody knows it, the rest of the hold, marked as estimated.

    ``running``: it goes on, so what is disputed of it does not shrink. The last word of its driver
    says how much was used in all, and with that how much is disputed. At
    the end a better meter's figure takes the place of a worse one's, down as well.
    """
    usage, model = reading.usage, model or task.run_model
    if usage is None and task.used is not None and task.used.meter == "progress":
        # Its agent's running totals are a meter: what they told stands, nothing is estimated.
        charged = Charge(
            agent=task.run_agent, model=model, book=state.policy.book, meter="progress"
        )
    elif usage is None:
        tokens, nanos = task.hold_left
        charged = Charge(
            agent=task.run_agent,
            model=model,
            tokens=tokens,
            nanos=nanos,
            book=state.policy.book,
            estimated=True,
            meter="estimate",
            unpriced=quote(state, model) is None,
        )
    else:
        charged = charge(
            state,
            agent=task.run_agent,
            model=model,
            usage=usage,
            own_cost=own_cost,
            fallback_nanos=task.hold_nanos,
            models=reading.models,
        )
        before = (0, 0)
        if task.used is not None:
            charged = less(charged, task.used)
            better = not running and rank(meter) < rank(task.used.meter)
            charged = charged if better else _not_negative(charged)
            before = (task.used.disputed_tokens, task.used.disputed_nanos)
        charged = plausible(state, charged, room(state, task), before)
        if running:
            charged.disputed_tokens = max(0, charged.disputed_tokens)
            charged.disputed_nanos = max(0, charged.disputed_nanos)
        charged.meter = meter
    charged.worker, charged.project, charged.kind = task.worker, task.project, task.kind
    charged.tasks = 1
    return charged


def unstarted(task: TaskRecord) -> Charge:
    """An attempt that never started costs nothing."""
    return Charge(task.run_agent, task.run_model, task.worker, task.project, task.kind)


def late(
    state: State, past: PastAttempt, usage: TokenParts, meter: str = "driver", models: ByModel = ()
) -> Charge:
    """A late actual: it takes the place of what was estimated for that attempt, in its window and
    in its scopes. What a meter had measured before is not taken back."""
    before = past.charge
    actual = charge(
        state,
        agent=before.agent,
        model=before.model,
        usage=usage,
        fallback_nanos=before.nanos,
        models=models,
    )
    more = replace(
        actual,
        **{
            part: max(0, getattr(actual, part) - had)
            for part, had in zip(_PARTS, before.parts, strict=True)
        },
        tokens=max(-before.estimated_tokens, actual.tokens - before.tokens),
        nanos=max(-past.estimated_nanos, actual.nanos - before.nanos),
        worker=before.worker,
        project=before.project,
        kind=before.kind,
        meter=meter,
        window_at=before.at if before.estimated_tokens or past.estimated_nanos else 0,
    )
    p = state.policy
    left = p.plausible_tokens - before.tokens, p.plausible_nanos - before.nanos
    return plausible(state, more, left, (before.disputed_tokens, before.disputed_nanos))


# -- the plausibility bound ----------------------------------------------------------------------


def room(state: State, task: TaskRecord) -> tuple[int, int]:
    """What reports can still charge the running attempt: tokens, nano-dollars. An estimate of the
    user's own lifts the bound to what was held for it: he said that so much is plausible."""
    tokens, nanos = state.policy.plausible_tokens, state.policy.plausible_nanos
    if task.given_estimate:
        tokens, nanos = max(tokens, task.first_hold[0]), max(nanos, task.first_hold[1])
    return tokens - task.used_tokens, nanos - task.used_nanos


def foreign(state: State, charged: Charge) -> Charge:
    """A report of work that asb did not dispatch: each by itself is held to the bound."""
    return plausible(state, charged, (state.policy.plausible_tokens, state.policy.plausible_nanos))


def plausible(
    state: State, charged: Charge, left: tuple[int, int], disputed: tuple[int, int] = (0, 0)
) -> Charge:
    """``found`` as far as ``left`` (tokens, nano-dollars) allows; the rest is disputed.

    ``disputed``: what is disputed of the attempt already and reported with this again. Where
    tokens are cut, their parts shrink in proportion, so that they add up to what is charged.
    """
    tokens = min(charged.tokens, max(0, left[0]))
    nanos = min(charged.nanos, max(0, left[1]))
    over = charged.tokens - tokens, charged.nanos - nanos
    shares = {name: getattr(charged, name) for name in _PARTS}
    if over[0]:
        shares = {name: part * tokens // charged.tokens for name, part in shares.items()}
        counted = TokenParts(**shares).counted(state.policy.cache_read_weight_percent)
        shares["input_tokens"] += max(0, tokens - counted)
    return replace(
        charged,
        **shares,
        tokens=tokens,
        nanos=nanos,
        disputed_tokens=over[0] - disputed[0],
        disputed_nanos=over[1] - disputed[1],
    )


_PARTS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")


def _not_negative(charge: Charge) -> Charge:
    """Within an attempt totals only rise: a meter that falls back takes nothing away."""
    return replace(charge, **{f: max(0, getattr(charge, f)) for f in (*_PARTS, "tokens", "nanos")})


def less(actual: Charge, before: Charge) -> Charge:
    """``actual`` less what was charged before."""
    return replace(
        actual,
        input_tokens=actual.input_tokens - before.input_tokens,
        output_tokens=actual.output_tokens - before.output_tokens,
        cache_read_tokens=actual.cache_read_tokens - before.cache_read_tokens,
        cache_write_tokens=actual.cache_write_tokens - before.cache_write_tokens,
        tokens=actual.tokens - before.tokens,
        nanos=actual.nanos - before.nanos,
    )


def retry_at(state: State, task: TaskRecord, defaults: Defaults, now: int) -> int:
    """When a task whose attempt failed is tried again, µs; 0 when that was the last."""
    if task.tries < task.max_attempts or escalates(state, task, defaults):
        return now + backoff_us(defaults, task.tries)
    return 0


def escalates(state: State, task: TaskRecord, defaults: Defaults) -> bool:
    """Whether a task whose tries are used up gets one more on the capable model: once, where it ran
    on a cheaper one, and only where the user did not name the model."""
    if not defaults.escalate_to or task.escalated or "m" in task.given:
        return False
    ran, capable = price_of(state, task.run_model), price_of(state, defaults.escalate_to)
    return ran is not None and capable is not None and ran.dearest < capable.dearest


def backoff_us(defaults: Defaults, attempt: int) -> int:
    """How long to wait after ``attempt`` failed, µs: doubling, up to a bound."""
    return min(defaults.backoff_s << min(attempt - 1, 30), defaults.backoff_max_s) * 1_000_000
