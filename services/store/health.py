"""Can this Redis carry a bus, and what does it promise? Asked at start and by ``asb doctor``."""

from __future__ import annotations

import re
from typing import Any, Literal

from msgspec import Struct

from services.runtime import urls
from services.runtime.errors import CommandRefused, RedisUnavailable, RedisUnsuitable
from services.store.client import Client
from services.store.replies import info_of

OLDEST = (6, 2, 0)
WAITAOF_SINCE = (7, 2, 0)
FULL_PERCENT = 80  # of maxmemory: from here on it is said
UNKNOWN = "unknown"  # asked, and the server would not say
NO_EVICTION = "redis-cli CONFIG SET maxmemory-policy noeviction, and the same in its redis.conf"
CLOSE_REPLICAS = (
    "redis-cli CONFIG SET min-replicas-to-write 1 and min-replicas-max-lag 2, on every server"
)
NEEDED_EVENTS = "K$gx"  # keyspace hints asb makes use of; without them it scans at a slow pace

Verdict = Literal["ok", "warn", "bad"]
FactRow = tuple[str, str, Verdict, str]  # name, value, verdict, hint


class ServerFacts(Struct, frozen=True, kw_only=True):
    """What a server says of itself. Texts are "unknown" where it refuses to tell."""

    kind: str  # redis | valkey | dragonfly
    version: tuple[int, int, int]  # of the Redis it is, or is compatible with
    version_text: str  # as a person knows it: "valkey 8.0.1"
    run_id: str  # changes with every start of the server
    mode: str  # standalone | sentinel | cluster
    role: str  # master | slave
    loading: bool
    used_memory: int  # bytes
    maxmemory: int  # bytes; 0 = no bound
    maxmemory_policy: str
    evicted_keys: int  # since the server started; 0 where it does not say
    appendonly: str  # as configured: yes | no | unknown
    appendfsync: str  # always | everysec | no | unknown
    aof_enabled: bool
    aof_last_write_status: str  # ok | err
    saves_rdb: str  # the `save` setting; "" = never, or unknown
    notify_keyspace_events: str
    has_waitaof: bool
    loopback: bool  # reachable from this machine only, as far as the URL tells
    fails_over: bool  # the URL names sentinels: they put a replica in its place when it fails
    replicas: int  # that follow it
    replicas_needed: int  # so many must follow closely, or it takes no writes; 0 = none


class Durability(Struct, frozen=True):
    """What an acknowledged submission survives here."""

    promise: str
    holds: tuple[str, ...]  # each thing it survives
    hint: str  # how to get more; empty where there is no more


async def check_server(client: Client) -> ServerFacts:
    """The facts of the server, if it can carry a bus.

    Raises RedisUnavailable (no answer, loading, a replica) or RedisUnsuitable (too old, evicts
    keys), each with a hint of what to do.
    """
    facts = await read_facts(client)
    _check_version(client.shown, facts)
    if facts.loading:
        raise RedisUnavailable(
            f"Redis at {client.shown} is loading its data", hint="wait a moment, then try again"
        )
    if facts.role != "master":
        raise RedisUnavailable(
            f"Redis at {client.shown} is a read-only replica",
            hint="point --redis or ASB_REDIS_URL at the primary",
        )
    if facts.mode == "sentinel":
        raise RedisUnsuitable(
            f"{client.shown} is a Sentinel, which keeps no data",
            hint="redis+sentinel://HOST,HOST,HOST/SERVICE leads to the primary that they watch",
        )
    if facts.mode == "cluster":
        raise RedisUnsuitable(
            f"Redis at {client.shown} is a node of a Cluster, and asb serves none yet",
            hint="point --redis at a server of its own; Sentinel: redis+sentinel://HOST,HOST/NAME",
        )
    if evicts(facts):
        raise RedisUnsuitable(
            f"Redis at {client.shown} may evict keys, the log among them: "
            f"maxmemory-policy is {facts.maxmemory_policy}",
            hint=f"{NO_EVICTION}; a hosted one: in its settings",
        )
    return facts


async def read_facts(client: Client) -> ServerFacts:
    """The facts of the server, whatever they are; for ``asb doctor``.

    Raises RedisUnavailable or RedisUnsuitable where it does not answer or refuses the login.
    """
    info = info_of(await client.call("INFO"))
    names = (
        *("appendonly", "appendfsync", "save", "notify-keyspace-events", "maxmemory-policy"),
        "min-replicas-to-write",
    )
    replies = await client.pipeline([("CONFIG", "GET", name) for name in names])
    config = {name: _setting(reply) for name, reply in zip(names, replies, strict=True)}
    kind, version_text = _identity(info)
    version = _version(info.get("redis_version", ""))
    return ServerFacts(
        kind=kind,
        version=version,
        version_text=version_text,
        run_id=info.get("run_id", UNKNOWN),
        mode=info.get("redis_mode") or info.get("server_mode", "standalone"),  # Valkey 9 says so
        role=info.get("role", "master"),
        loading=info.get("loading", "0") == "1",
        used_memory=_number(info.get("used_memory", "")),
        maxmemory=_number(info.get("maxmemory", "")),
        # INFO first: hosted servers often close CONFIG.
        maxmemory_policy=info.get("maxmemory_policy", config["maxmemory-policy"]),
        evicted_keys=_number(info.get("evicted_keys", "")),
        appendonly=config["appendonly"],
        appendfsync=config["appendfsync"],
        aof_enabled=info.get("aof_enabled", "0") == "1",
        aof_last_write_status=info.get("aof_last_write_status", UNKNOWN),
        saves_rdb=config["save"],
        notify_keyspace_events=config["notify-keyspace-events"],
        has_waitaof=version >= WAITAOF_SINCE,
        loopback=is_loopback(client.url),
        fails_over=urls.sentinel(client.url) is not None,
        replicas=_number(info.get("connected_slaves", "")),
        replicas_needed=_number(config["min-replicas-to-write"]),
    )


def durability(facts: ServerFacts) -> Durability:
    """Which promise about acknowledged submissions holds on this server."""
    kept = _kept_by_one(facts)
    if not facts.fails_over:
        return kept
    bound = "" if facts.replicas_needed else f"to bound that: {CLOSE_REPLICAS}"
    return Durability(
        f"{kept.promise}; a failover takes what its replica had not got yet, and asb says so",
        kept.holds,
        "; ".join(filter(None, (kept.hint, bound))),
    )


def _kept_by_one(facts: ServerFacts) -> Durability:
    process = "the death of any process, Redis included"
    if not facts.aof_enabled:
        return _without_aof(facts)
    if facts.aof_last_write_status == "err":
        return Durability(
            "nothing written now is safe: Redis cannot write its append-only file",
            (),
            "free disk space on the Redis host; see its log",
        )
    if facts.appendfsync == "always":
        return Durability(
            "an acknowledged submission survives power loss", (process, "power loss"), ""
        )
    stronger = "for power loss too: redis-cli CONFIG SET appendfsync always (slower)"
    if facts.appendfsync == "everysec":
        return Durability(
            "an acknowledged submission survives the death of any process; "
            "power loss may take the last two seconds",
            (process,),
            stronger,
        )
    if facts.appendfsync == "no":
        return Durability(
            "an acknowledged submission survives the death of any process; "
            "power loss may take what the system had not written yet, often 30 seconds",
            (process,),
            stronger,
        )
    return Durability(
        "an acknowledged submission survives the death of any process; "
        "what power loss may take is not known, because this Redis does not tell its appendfsync",
        (process,),
        "ask its operator for appendfsync always",
    )


def _without_aof(facts: ServerFacts) -> Durability:
    hint = "redis-cli CONFIG SET appendonly yes, and set it in redis.conf too"
    if facts.saves_rdb not in ("", UNKNOWN):
        return Durability(
            "a restart of Redis loses what came after its last RDB snapshot "
            f"(save {facts.saves_rdb})",
            ("the death of any process but Redis",),
            hint,
        )
    return Durability(
        "a restart of Redis loses the log" if facts.saves_rdb == "" else "nothing is promised",
        ("the death of any process but Redis",),
        hint,
    )


def facts_table(facts: ServerFacts) -> list[FactRow]:
    """Rows for a screen: name, value, verdict, hint (empty where all is well)."""
    return [
        _version_row(facts),
        ("run id", facts.run_id, "ok", ""),
        _mode_row(facts),
        _row("role", facts.role, facts.role == "master", "bad", "point --redis at the primary"),
        _row("loading", _yes(facts.loading), not facts.loading, "bad", "wait until it is loaded"),
        _memory_row(facts),
        _evicted_row(facts),
        *_aof_rows(facts),
        *_failover_rows(facts),
        _events_row(facts),
        _row(
            "reachable from",
            "this machine" if facts.loopback else "the network",
            facts.loopback,
            "warn",
            "give every agent its own user: `asb acl NAME`",
        ),
    ]


# -- rows --------------------------------------------------------------------------------------


def _row(name: str, value: str, good: bool, otherwise: Verdict, hint: str) -> FactRow:
    return (name, value, "ok", "") if good else (name, value, otherwise, hint)


def _version_row(facts: ServerFacts) -> FactRow:
    good = facts.version >= OLDEST
    return _row("version", facts.version_text, good, "bad", "asb needs Redis 6.2 or newer")


def _mode_row(facts: ServerFacts) -> FactRow:
    hint = "asb serves no Cluster yet: give it a server of its own, or Sentinel"
    return _row("mode", facts.mode, facts.mode != "cluster", "bad", hint)


def _memory_row(facts: ServerFacts) -> FactRow:
    bound = f"at most {facts.maxmemory // 2**20} MiB" if facts.maxmemory else "no bound"
    value = f"{facts.used_memory / 2**20:,.1f} MiB used, {bound}, {facts.maxmemory_policy}"
    if evicts(facts):
        return ("memory", value, "bad", NO_EVICTION)
    full = facts.maxmemory and facts.used_memory * 100 >= FULL_PERCENT * facts.maxmemory
    hint = "when it is full it refuses what is submitted: raise maxmemory, or trim old data"
    return _row("memory", value, not full, "warn", hint)


def _evicted_row(facts: ServerFacts) -> FactRow:
    value = f"{facts.evicted_keys:,} since this Redis started"
    hint = (
        "it dropped keys to make room, perhaps tasks or heartbeats: set maxmemory-policy "
        "noeviction, then `asb replay --verify` says whether the log is whole"
    )
    return _row("evicted keys", value, facts.evicted_keys == 0, "warn", hint)


def _aof_rows(facts: ServerFacts) -> list[FactRow]:
    status = facts.aof_last_write_status
    return [
        _row(
            "append-only file",
            "on" if facts.aof_enabled else "off",
            facts.aof_enabled,
            "bad",
            "redis-cli CONFIG SET appendonly yes",
        ),
        _row(
            "forced to disk",
            facts.appendfsync,
            facts.appendfsync == "always",
            "warn",
            "redis-cli CONFIG SET appendfsync always survives power loss too",
        ),
        _row("last write", status, status != "err", "bad", "free disk space on the Redis host"),
        ("waitaof", _yes(facts.has_waitaof), "ok", ""),
    ]


def _failover_rows(facts: ServerFacts) -> list[FactRow]:
    if not facts.fails_over:
        return []
    needed = f"{facts.replicas_needed} must follow closely, or it takes no writes"
    free = "it takes writes whether they follow or not"
    value = f"{facts.replicas} following; {needed if facts.replicas_needed else free}"
    if not facts.replicas:
        return [("replicas", value, "warn", "nobody can take over: start a replica")]
    return [_row("replicas", value, facts.replicas_needed > 0, "warn", CLOSE_REPLICAS)]


def _events_row(facts: ServerFacts) -> FactRow:
    value = facts.notify_keyspace_events
    return _row(
        "keyspace events",
        value or "off",
        sends_needed_events(value),
        "warn",
        f"redis-cli CONFIG SET notify-keyspace-events {NEEDED_EVENTS} shows progress at once",
    )


# -- reading -----------------------------------------------------------------------------------


def sends_needed_events(value: str) -> bool:
    """Does this notify-keyspace-events setting cover what asb listens to?"""
    return all(flag in value or (flag != "K" and "A" in value) for flag in NEEDED_EVENTS)


def is_loopback(url: str) -> bool:
    """Does the URL lead to this machine's loopback interface or a Unix socket?"""
    return all(host in ("localhost", "::1") or host.startswith("127.") for host in urls.hosts(url))


def _check_version(shown: str, facts: ServerFacts) -> None:
    if facts.version < OLDEST:
        raise RedisUnsuitable(
            f"Redis at {shown} is {facts.version_text}, and asb needs 6.2 or newer",
            hint="upgrade it, or run `asb up` without --redis for an embedded one",
        )


def evicts(facts: ServerFacts) -> bool:
    """Does it drop keys to make room? Whatever its bound is now: that is changed in a moment, and
    `volatile-*` takes heartbeats, which expire."""
    return facts.maxmemory_policy not in ("noeviction", UNKNOWN)


def memory_of(info: bytes) -> tuple[int, int]:
    """What a server's INFO says of the memory it uses, and of its bound (0: none), in bytes."""
    values = info_of(info)
    return _number(values.get("used_memory", "")), _number(values.get("maxmemory", ""))


def _setting(reply: Any) -> str:
    if isinstance(reply, CommandRefused) or len(reply) < 2:
        return UNKNOWN
    return bytes(reply[1]).decode("utf-8", "replace")


def _identity(info: dict[str, str]) -> tuple[str, str]:
    """The program's name, and name and version as a person knows them."""
    for kind in ("valkey", "dragonfly"):
        if own := info.get(f"{kind}_version"):
            return kind, f"{kind} {own}"
    return "redis", f"redis {info.get('redis_version', UNKNOWN)}"


def _version(text: str) -> tuple[int, int, int]:
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else (0, 0, 0)


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"
