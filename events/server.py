"""The server that carries the log, where it may lose it."""

from __future__ import annotations

from events.envelope import Payload, wire
from events.words import Label


@wire("redis.evicts")
class RedisEvicts(Payload):
    """The server may drop keys to make room, the log among them, or has begun to.

    ``policy``: its maxmemory-policy; ``evicted``: how many keys it has dropped since it started,
    and ``run`` which start that was (the server's run id). Said once, until `RedisKeeps`.
    """

    policy: Label
    evicted: int
    run: Label


@wire("redis.keeps")
class RedisKeeps(Payload):
    """The server drops no keys any more; ``evicted`` and ``run`` as in `RedisEvicts`."""

    evicted: int
    run: Label
