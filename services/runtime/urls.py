"""Addresses of a Redis, as they may be shown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

SENTINEL_PORT = 26379
SENTINEL_SCHEMES = ("redis+sentinel", "rediss+sentinel")
REDIS_PORT = 6379
CLUSTER_SCHEMES = ("redis+cluster", "rediss+cluster")
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:,\[\]]+)(?::(?P<port>[0-9]{1,5}))?\Z")
_QUERIED = re.compile(r"(?i)([?&]\w*(?:password|secret|token)=)[^&#]*")


class SentinelUrl(NamedTuple):
    """The sentinels (host and port) that know which server of ``service`` is primary.

    Written ``redis+sentinel://[user:password@]h1,h2:26380,h3/service[/db][?options]``. ``server``
    is a plain URL with the login, database and options for the primary; its host says nothing.
    """

    hosts: tuple[tuple[str, int], ...]
    service: str
    server: str


class _Parts(NamedTuple):
    """Of a URL of several ``hosts``: ``scheme`` before any ``+``, ``login`` with its @, ``options``
    with their ?."""

    scheme: str
    login: str
    hosts: str
    path: str
    options: str


def _parts(url: str) -> _Parts:
    scheme, _, rest = url.partition("://")
    address, question, options = rest.partition("?")
    place, _, path = address.partition("/")
    login, at, hosts = place.rpartition("@")
    return _Parts(scheme.partition("+")[0], login + at, hosts, path, question + options)


def sentinel(url: str) -> SentinelUrl | None:
    """The sentinels that ``url`` names; None where its scheme is another. Raises ValueError where
    it cannot be read."""
    if url.partition("://")[0] not in SENTINEL_SCHEMES:
        return None
    parts = _parts(url)
    service, _, database = parts.path.strip("/").partition("/")
    if not service or (database and not database.isdecimal()):
        raise ValueError("expected redis+sentinel://HOST,HOST,HOST/SERVICE or …/SERVICE/DATABASE")
    server = f"{parts.scheme}://{parts.login}localhost/{database}{parts.options}"
    hosts = tuple(_host(host, SENTINEL_PORT) for host in parts.hosts.split(","))
    return SentinelUrl(hosts, service, server)


class ClusterUrl(NamedTuple):
    """Some nodes (host and port) of a Cluster: they know the others.

    Written ``redis+cluster://[user:password@]h1,h2:6380[?options]``. ``server`` is a plain URL of
    the first, with the login and options for every node.
    """

    hosts: tuple[tuple[str, int], ...]
    server: str


def cluster(url: str) -> ClusterUrl | None:
    """The nodes that ``url`` names; None where its scheme is another. Raises ValueError where it
    cannot be read."""
    if url.partition("://")[0] not in CLUSTER_SCHEMES:
        return None
    parts = _parts(url)
    if parts.path not in ("", "0"):
        raise ValueError("expected redis+cluster://HOST,HOST; a Cluster has database 0 only")
    server = f"{parts.scheme}://{parts.login}{parts.hosts.partition(',')[0]}{parts.options}"
    return ClusterUrl(tuple(_host(host, REDIS_PORT) for host in parts.hosts.split(",")), server)


def cluster_of(url: str, nodes: Iterable[str] = ()) -> str:
    """How the Cluster at ``url`` is named, which may be the plain URL of a node: by these
    ``nodes``, each ``host:port``, or by those it names."""
    parts = _parts(url)
    hosts = ",".join(_bracketed(node) for node in nodes) or parts.hosts or "localhost"
    return f"{parts.scheme}+cluster://{parts.login}{hosts}{parts.options}"


def _bracketed(node: str) -> str:
    host, _, port = node.rpartition(":")
    return f"[{host}]:{port}" if ":" in host else node


def _host(text: str, port: int) -> tuple[str, int]:
    match = _HOST.match(text)
    if match is None or int(match["port"] or 0) > 65535:
        raise ValueError(f"{text[:80]!r} is no host, or host and port")
    return match["host"].strip("[]"), int(match["port"] or port)


def hosts(url: str) -> tuple[str, ...]:
    """The hosts that ``url`` names; () for a socket of this machine."""
    named = sentinel(url) or cluster(url)
    if named is not None:
        return tuple(host for host, _ in named.hosts)
    parts = urlsplit(url)
    return () if parts.scheme == "unix" else (parts.hostname or "localhost",)


def names_a_redis(url: str) -> bool:
    """Whether ``url`` can be the address of a Redis: its scheme, and a port that there can be."""
    try:
        if sentinel(url) is not None or cluster(url) is not None:
            return True
        parts = urlsplit(url)
        _ = parts.port  # asking for it checks it
    except ValueError:
        return False
    if parts.scheme == "unix":
        return len(parts.path) > 1
    return parts.scheme in ("redis", "rediss") and bool(parts.netloc)


def redis_cli(url: str) -> str:
    """The command line that speaks to the Redis at ``url``; a password is not in it."""
    named = sentinel(url)
    if named is not None:  # they answer who is primary at present
        host, port = named.hosts[0]
        return f"redis-cli -h {host} -p {port} SENTINEL get-master-addr-by-name {named.service}"
    nodes = cluster(url)
    if nodes is not None:
        user = urlsplit(nodes.server).username
        (host, port), *_ = nodes.hosts
        login = (" --tls" if url.startswith("rediss") else "") + (f" --user {user}" if user else "")
        return f"redis-cli -c -h {host} -p {port}{login}"
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
