"""Addresses of a Redis: what can be one, and where it leads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.runtime.urls import SentinelUrl, hosts, names_a_redis, redacted, redis_cli, sentinel

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


@pytest.mark.parametrize(
    "url",
    [
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


def test_every_address_of_the_page_for_operators_is_one() -> None:
    page = (ROOT / "ops" / "topologies.md").read_text(encoding="utf-8")
    urls = re.findall(r"\b(?:rediss?|unix)(?:\+sentinel)?://[^\s`|]+", page)
    assert len(urls) >= 8
    assert [url for url in urls if not names_a_redis(url)] == []
