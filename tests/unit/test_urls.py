"""Addresses of a Redis: what can be one, and where it leads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.runtime.urls import (
    ClusterUrl,
    SentinelUrl,
    cluster,
    cluster_of,
    hosts,
    names_a_redis,
    redacted,
    redis_cli,
    sentinel,
)

ROOT = Path(__file__).resolve().parents[2]


def test_sentinels_are_named_with_their_service_and_the_login_of_its_servers() -> None:
    assert sentinel("redis+sentinel://u:p@a,b:7,[::1]:8/bus/2?sentinel_password=s") == SentinelUrl(
        (("a", 26379), ("b", 7), ("::1", 8)),
        "bus",
        "redis://u:p@localhost/2?sentinel_password=s",
    )
    assert sentinel("rediss+sentinel://a/bus") == SentinelUrl(
        (("a", 26379),), "bus", "rediss://localhost/"
    )
    assert sentinel("redis://a/0") is None


def test_nodes_of_a_cluster_are_named_with_the_login_of_all() -> None:
    assert cluster("rediss+cluster://u:p@a,b:7,[::1]:8?ssl_ca_certs=x") == ClusterUrl(
        (("a", 6379), ("b", 7), ("::1", 8)), "rediss://u:p@a?ssl_ca_certs=x"
    )
    assert cluster("redis+cluster://a/0") == ClusterUrl((("a", 6379),), "redis://a")
    assert cluster("redis://a/0") is None


def test_a_plain_address_of_a_node_becomes_that_of_its_cluster() -> None:
    assert cluster_of("redis://u:p@a:7/0?x=1") == "redis+cluster://u:p@a:7?x=1"
    assert cluster_of("rediss://a", ["b:1", "::1:2"]) == "rediss+cluster://b:1,[::1]:2"
    assert cluster_of("redis+cluster://a,b", ["c:1"]) == "redis+cluster://c:1"


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://",
        "redis+cluster://a,,b",
        "redis+cluster://a/1",
        "redis+cluster://a:b",
        "redis+sentinel://a,b",
        "redis+sentinel://a,b/",
        "redis+sentinel:///bus",
        "redis+sentinel://a,,b/bus",
        "redis+sentinel://a:b/bus",
        "redis+sentinel://a:99999/bus",
        "redis+sentinel://a/bus/x",
        "redis://a:b",
        "http://a",
        "a:6379",
    ],
)
def test_what_cannot_be_read_is_no_address(url: str) -> None:
    assert not names_a_redis(url)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("redis+sentinel://a,b:7/bus", ("a", "b")),
        ("redis+cluster://a,b:7", ("a", "b")),
        ("redis://h:1/0", ("h",)),
        ("rediss://u:p@h", ("h",)),
        ("unix:///run/redis.sock", ()),
    ],
)
def test_an_address_names_hosts(url: str, named: tuple[str, ...]) -> None:
    assert names_a_redis(url)
    assert hosts(url) == named


def test_no_password_is_shown_and_sentinels_are_asked_by_hand() -> None:
    url = "redis+sentinel://u:secret@a,b/bus?sentinel_password=secret"
    assert "secret" not in redacted(url)
    asked = "redis-cli -h a -p 26379 SENTINEL get-master-addr-by-name bus"
    assert redis_cli(url) == asked
    url = "rediss+cluster://u:secret@a,b"
    assert "secret" not in redacted(url)
    assert redis_cli(url) == "redis-cli -c -h a -p 6379 --tls --user u"


def test_every_address_of_the_page_for_operators_is_one() -> None:
    page = (ROOT / "ops" / "topologies.md").read_text(encoding="utf-8")
    urls = re.findall(r"\b(?:rediss?|unix)(?:\+sentinel|\+cluster)?://[^\s`|]+", page)
    assert len(urls) >= 8
    assert [url for url in urls if not names_a_redis(url)] == []
