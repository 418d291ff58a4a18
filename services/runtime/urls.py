"""Addresses of a Redis, as they may be shown."""

from __future__ import annotations


def redacted(url: str) -> str:
    """``url`` without its password, for messages and logs."""
    scheme, separator, rest = url.partition("://")
    login, at, host = rest.rpartition("@")
    if not at:
        return url
    user = login.partition(":")[0]
    return f"{scheme}{separator}{user}:***@{host}" if login else url
