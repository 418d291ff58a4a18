"""Limits that several buses divide: what the settings name, held against what a log says."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from events.policy import Share
from projections.format import limit_text
from projections.shares import SCOPE, share_of
from projections.state import State
from services.client.bus import opened
from services.runtime.errors import AsbError, CommandRefused
from services.runtime.settings import Settings
from services.runtime.settings_shares import ShareOfBus, ShareSetting
from services.store.health import FactRow
from services.store.heartbeat import beats

SET_IT = "[[shares]] names each bus, for `asb service shares`: see ops/topologies.md"


def settings_of(settings: Settings, bus: ShareOfBus) -> Settings:
    """The settings with which a bus is opened."""
    return replace(
        settings,
        redis_url=bus.redis_url or settings.redis_url,
        namespace=bus.namespace or settings.namespace,
    )


def contradiction(setting: ShareSetting, bus: ShareOfBus, share: Share | None) -> str:
    """What a log says of its share that the settings do not, "" where they agree."""
    home = setting.buses[0].name
    if share is None or (share.bus, share.home) == (bus.name, home):
        return ""
    return (
        f"{setting.unit}/{setting.window}: the log of {bus.name} says that it is {share.bus}, and "
        f"that {share.home} keeps the whole; [[shares]] names {home} first"
    )


def share_rows(settings: Settings, state: State) -> Iterator[FactRow]:
    """For ``asb doctor``: each bus of each whole, and shares of this one that nobody moves."""
    running: set[str] = set()
    for setting in settings.shares:
        for bus in setting.buses:
            yield _row(settings, setting, bus, running)
        double = [x for x in settings.policy.limits if _is_same(setting, x.scope, x.unit, x.window)]
        if double and settings.origins.get("policy.limits", "default") != "default":
            said = f"{setting.unit}/{setting.window} overall is set in [policy] limits, too"
            yield ("shares", said, "warn", "what is divided counts: take the other one out")
    if settings.shares and "shares" not in running:
        said = "no service moves them: each bus keeps what it has"
        yield ("shares", said, "warn", "asb service shares")
    known = {(x.unit, x.window) for x in settings.shares}
    for share in state.policy.shares:
        if (share.unit, share.window) not in known and share.balance:
            name = f"{share.unit}/{share.window}"
            said = f"{name} is the share of {share.bus}, and these settings do not divide it"
            yield ("shares", said, "ok", SET_IT)


def _is_same(setting: ShareSetting, scope: str, unit: str, window: str) -> bool:
    return (scope, unit, window) == (SCOPE, setting.unit, setting.window)


def _row(settings: Settings, setting: ShareSetting, bus: ShareOfBus, running: set[str]) -> FactRow:
    """How a bus stands. The services that run there are added to ``running``."""
    name, unit = f"share of {bus.name}", setting.unit
    try:
        with opened(settings_of(settings, bus)) as there:
            state = there.state()
            running |= {beat.service for beat in beats(there.client, there.keys)}
    except (AsbError, CommandRefused) as error:
        said = f"{unit}/{setting.window}: it cannot be read: {str(error).splitlines()[0]}"
        return (name, said, "bad", "what it has is locked until it can be read again")
    share = share_of(state.policy, SCOPE, unit, setting.window)
    problem = contradiction(setting, bus, share)
    if problem:
        return (name, problem, "bad", "name it as its log does, and the one with the whole first")
    if share is None:
        if bus.leaving:
            hint = "take it out of [[shares]]; `asb limits set` there sets a limit of its own"
            return (name, f"{unit}/{setting.window}: it has left", "warn", hint)
        hint = "`asb service shares` has it join once every bus can be read"
        return (name, f"{unit}/{setting.window}: none yet", "warn", hint)
    said = f"{limit_text(unit, share.balance)} of {limit_text(unit, share.whole)}"
    leaves = "; it leaves" if bus.leaving else ""
    return (name, f"{unit}/{setting.window}: {said}{leaves}", "ok", "")
