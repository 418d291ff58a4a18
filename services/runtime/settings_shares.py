"""Settings of limits that several buses divide: the whole, and who has a share of it."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Meta
from msgspec.structs import replace

from events.money import exact
from events.policy import check_limit
from services.runtime.settings_around import Section
from services.runtime.urls import names_a_redis, redacted

_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")


class ShareOfBus(Section, frozen=True, kw_only=True):
    """A bus that has a share. ``name``: what the others know it by, for good; ``redis_url`` and
    ``namespace``: where it is, without them the bus that the settings are for. ``leaving``: it
    shall give back all it has."""

    name: str
    redis_url: str | None = None
    namespace: str | None = None
    leaving: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name[:80]!r}: letters, digits, - and _ only")
        if self.redis_url is not None and not names_a_redis(self.redis_url):
            raise ValueError(f"redis_url {redacted(self.redis_url)!r} is no address of a Redis")
        if self.namespace is not None and not _NAME.fullmatch(self.namespace):
            raise ValueError(f"namespace {self.namespace[:80]!r}: letters, digits, - and _ only")


class ShareSetting(Section, frozen=True, kw_only=True):
    """At most ``amount`` in each ``window``, on all ``buses`` together; the first of them keeps
    the whole on its log."""

    unit: Literal["tokens", "money"]
    window: str
    amount: Decimal
    buses: Annotated[tuple[ShareOfBus, ...], Meta(min_length=1, max_length=100)]

    def __post_init__(self) -> None:
        check_limit("global", self.unit, self.window)
        _ = self.exact_amount
        names = [bus.name for bus in self.buses]
        places = [(bus.redis_url, bus.namespace) for bus in self.buses]
        if len(set(names)) < len(names):
            raise ValueError("two of its buses have the same name")
        if len(set(places)) < len(places):
            raise ValueError("two of its buses are the same: give each a redis_url or a namespace")
        if self.buses[0].leaving:
            raise ValueError(f"{names[0]} comes first and keeps the whole: it cannot leave")

    @property
    def exact_amount(self) -> int:
        """Tokens or nano-dollars, as the log says it. Raises ValueError if there is none."""
        return exact(self.amount, 9 if self.unit == "money" else 0)

    @property
    def shown(self) -> ShareSetting:
        """The same without passwords."""
        buses = (replace(x, redis_url=x.redis_url and redacted(x.redis_url)) for x in self.buses)
        return replace(self, buses=tuple(buses))

    def __str__(self) -> str:
        amount = f"${self.amount}" if self.unit == "money" else f"{self.amount} {self.unit}"
        return f"{amount}/{self.window} over {', '.join(bus.name for bus in self.buses)}"
