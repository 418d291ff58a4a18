"""Where a Redis is, taken from its URL, and what is said to it first."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote, urlsplit

PORT = 6379
CONNECT_SECONDS = 5.0  # for a connection to be made
# Who has moved no byte for so long while an answer was awaited is given up, everywhere: a failover
# is over by then, a lease is not, and a server that is only busy has said BUSY or LOADING.
SILENCE_SECONDS = 10.0


class Address(NamedTuple):
    """A plain place: a host and port, or the ``path`` of a socket. ``user`` and ``password`` are
    "" where there are none."""

    host: str
    port: int
    path: str
    user: str
    password: str
    database: int

    @property
    def opening(self) -> list[tuple[str | int, ...]]:
        """The commands that come first: who we are, and which database."""
        login = ("AUTH", *((self.user,) if self.user else ()), self.password)
        return [
            *([login] if self.password else ()),
            *([("SELECT", self.database)] if self.database else ()),
        ]


def plain(url: str) -> Address | None:
    """The place that ``url`` names; None where it asks for more than a plain connection (TLS,
    options behind ``?``), which is left to redis-py."""
    parts = urlsplit(url)
    if parts.query or parts.scheme not in ("redis", "unix"):
        return None
    login = (unquote(parts.username or ""), unquote(parts.password or ""))
    if parts.scheme == "unix":
        return Address("", 0, unquote(parts.path), *login, 0)
    database = parts.path.strip("/")
    try:
        port = parts.port or PORT
    except ValueError:
        return None
    if database and not database.isdecimal():
        return None
    return Address(unquote(parts.hostname or "localhost"), port, "", *login, int(database or 0))
