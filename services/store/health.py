"""Can this Redis carry a bus, and what does it promise? Asked at start and by ``asb doctor``."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from services.runtime import urls
from services.runtime.errors import CommandRefused, RedisUnavailable, RedisUnsuitable
from services.store.client import Client
from services.store.replies import info_of

logger = logging.getLogger("asb")

OLDEST = (6, 2, 0)
WAITAOF_SINCE = (7, 2, 0)
UNKNOWN = "unknown"  # asked, and the server would not say
NO_EVICTION = "redis-cli CONFIG SET maxmemory-policy noeviction, and the same in its redis.conf"
CLOSE_REPLICAS = (
    "redis-cli CONFIG SET min-replicas-to-write 1 and min-replicas-max-lag 2, on every server"
)
NEEDED_EVENTS = "K$gx"  # keyspace hints asb makes use of; without them it scans at a slow pace

Verdict = Literal["ok", "warn", "bad"]
FactRow = tuple[str, str, Verdict, str]  # name, value, verdict, hint
_ASKED = (
    *("appendonly", "appendfsync", "save", "notify-keyspace-events", "maxmemory-policy"),
    "min-replicas-to-write",
)
_FORCED = ("always", "everysec", "no", UNKNOWN)  # the strongest first


class ServerFacts(Struct, frozen=True, kw_only=True):
    """What a server says of itself. Texts are "unknown" where it refuses to tell. Of a Cluster: the
    weakest word of its primaries, what they hold together, and what holds of each."""

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
    fails_over: bool  # a replica is put in its place when it fails: by Sentinel, or in a Cluster
    replicas: int  # that follow it
    replicas_needed: int  # so many must follow closely, or it takes no writes; 0 = none
    cluster: str = ""  # the URL that names all primaries, without password; "" for no Cluster


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
    if facts.cluster and urls.cluster(client.url) is None:
        logger.warning("%s is one node of a Cluster: %s names it", client.shown, facts.cluster)
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
    infos = [info_of(info) for info in await client.everywhere("INFO")]
    settings = await asyncio.gather(*(_settings(client, name, len(infos)) for name in _ASKED))
    configs = [dict(zip(_ASKED, values, strict=True)) for values in zip(*settings, strict=True)]
    facts = [_facts(client.url, *said) for said in zip(infos, configs, strict=True)]
    if not client.primaries:
        return facts[0]
    named = urls.cluster_of(client.url, client.primaries)
    return replace(_together(facts), cluster=urls.redacted(named))


async def _settings(client: Client, name: str, count: int) -> list[str]:
    """A setting of each of ``count`` servers."""
    try:
        replies = await client.everywhere("CONFIG", "GET", name)
    except (CommandRefused, RedisUnsuitable):
        return [UNKNOWN] * count
    return [_setting(reply) for reply in replies]


def _together(facts: list[ServerFacts]) -> ServerFacts:
    """Of several primaries: what is the weakest of each holds of all."""
    deaf = [f for f in facts if not sends_needed_events(f.notify_keyspace_events)]
    return replace(
        max(facts, key=_weakness),
        evicted_keys=sum(f.evicted_keys for f in facts),
        used_memory=sum(f.used_memory for f in facts),
        maxmemory=sum(f.maxmemory for f in facts) if all(f.maxmemory for f in facts) else 0,
        notify_keyspace_events=(deaf or facts)[0].notify_keyspace_events,
        loading=any(f.loading for f in facts),
        version=min(f.version for f in facts),
        replicas=min(f.replicas for f in facts),
        replicas_needed=min(f.replicas_needed for f in facts),
    )


def _weakness(facts: ServerFacts) -> tuple[bool, bool, bool, int]:
    """Larger where less is promised."""
    cannot_write = facts.aof_last_write_status == "err"
    return evicts(facts), not facts.aof_enabled, cannot_write, _FORCED.index(facts.appendfsync)


def _facts(url: str, info: dict[str, str], config: dict[str, str]) -> ServerFacts:
    """The facts of one server."""
    kind, version_text = _identity(info)
    version = _version(info.get("redis_version", ""))
    return ServerFacts(
        kind=kind,
        version=version,
        version_text=version_text,
        run_id=info.get("run_id", UNKNOWN),
        mode=_mode(info),
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
        loopback=is_loopback(url),
        fails_over=urls.sentinel(url) is not None or _mode(info) == "cluster",
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


def _mode(info: dict[str, str]) -> str:
    return info.get("redis_mode") or info.get("server_mode", "standalone")  # Valkey 9 says so


def _setting(reply: Any) -> str:
    if len(reply) < 2:
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
