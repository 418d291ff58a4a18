"""Addresses of a Redis, as they may be shown."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_QUERIED = re.compile(r"(?i)([?&](?:password|secret|token)=)[^&#]*")


def names_a_redis(url: str) -> bool:
    """Whether ``url`` can be the address of a Redis: its scheme, and a port that there can be."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # asking for it checks it
    except ValueError:
        return False
    if parts.scheme == "unix":
        return len(parts.path) > 1
    return parts.scheme in ("redis", "rediss") and bool(parts.netloc)


def redis_cli(url: str) -> str:
    """The command line that speaks to the Redis at ``url``; a password is not in it."""
    parts = urlsplit(url)
    if parts.scheme != "redis" or parts.username or parts.password:
        return f"redis-cli -u {redacted(url)}"
    host = "" if parts.hostname in (None, "127.0.0.1", "localhost") else f" -h {parts.hostname}"
    port = f" -p {parts.port}" if parts.port not in (None, 6379) else ""
    number = parts.path.strip("/")
    base = f" -n {number}" if number.isdecimal() and int(number) else ""
    return f"redis-cli{host}{port}{base}"


def redacted(url: str) -> str:
    """``url`` without its password, for messages and logs."""
    url = _QUERIED.sub(r"\1***", url)
    scheme, separator, rest = url.partition("://")
    login, at, host = rest.rpartition("@")
    if not at:
        return url
    user = login.partition(":")[0]
    return f"{scheme}{separator}{user}:***@{host}" if login else url
