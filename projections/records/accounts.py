"""An account at a provider, as far as it was ever refused."""

from __future__ import annotations

import msgspec


class ProviderAccount(msgspec.Struct, array_like=True, gc=False):
    """``limited``: its workers get nothing new until ``until`` (µs). ``refusals``: so many in a row
    since something was last completed on it. ``place``: log id of the newest refusal."""

    name: str
    limited: bool = False
    until: int = 0
    since: int = 0
    refusals: int = 0
    reset_named: bool = False
    place: str = ""
