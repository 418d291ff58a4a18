"""Who may ask the page for what: names, origins, the token, bodies."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.runtime.errors import ConfigError
from services.runtime.settings import Settings, load
from services.web.guard import OWN_NAMES, POLICY, Rules, denial
from services.web.service import TOKEN_FILE, rules_of, token_of

TOKEN = "correct-horse-battery"
LOCAL, REMOTE = Rules(OWN_NAMES, TOKEN, False), Rules(OWN_NAMES | {"asb.example"}, TOKEN, True)
HOST = {"host": "127.0.0.1:8642"}
ORDER = {
    **HOST,
    "origin": "http://127.0.0.1:8642",
    "authorization": f"Bearer {TOKEN}",
    "content-type": "application/json",
    "content-length": "20",
}


def status(rules: Rules, method: str, path: str, headers: dict[str, str]) -> int:
    refused = denial(rules, method, path, headers)
    return refused.status if refused is not None else 200


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9000", "[::1]:8642", "127.0.0.1"])
def test_the_page_goes_by_names_of_this_machine(host: str) -> None:
    assert status(LOCAL, "GET", "/api/log", {"host": host}) == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "127.0.0.1.evil.example:8642",
        "localhost.",
        "evil.example:127",
        "[::2]:1",
    ],
)
def test_and_by_no_other(host: str) -> None:
    assert status(LOCAL, "GET", "/", {"host": host}) == 421
    assert status(LOCAL, "POST", "/api/order/submit", {**ORDER, "host": host}) == 421


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:8642"])
def test_a_page_of_another_site_may_not_even_look(origin: str) -> None:
    assert status(LOCAL, "POST", "/api/order/submit", {**ORDER, "origin": origin}) == 403
    assert status(LOCAL, "GET", "/api/log", {**HOST, "origin": origin}) == 403
    assert status(LOCAL, "GET", "/api/log", {**HOST, "sec-fetch-site": "cross-site"}) == 403
    assert status(LOCAL, "GET", "/", {**HOST, "sec-fetch-site": "cross-site"}) == 200  # a link


def test_an_order_needs_the_token_and_is_json() -> None:
    path = "/api/order/cancel"
    assert status(LOCAL, "POST", path, ORDER) == 200
    for wrong in ("", "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer \xff"):
        assert status(LOCAL, "POST", path, {**ORDER, "authorization": wrong}) == 401
    assert status(LOCAL, "POST", path, {**ORDER, "content-type": "text/plain"}) == 415
    assert status(LOCAL, "POST", path, {**ORDER, "content-length": ""}) == 411
    assert status(LOCAL, "POST", path, {**ORDER, "content-length": "9999999"}) == 413
    assert status(LOCAL, "DELETE", path, ORDER) == 405


def test_looking_needs_it_only_where_others_reach_the_page() -> None:
    assert status(LOCAL, "GET", "/api/stream", HOST) == 200
    assert status(REMOTE, "GET", "/api/stream", {"host": "asb.example"}) == 401
    named = {"host": "asb.example", "authorization": f"bearer {TOKEN}"}
    assert status(REMOTE, "GET", "/api/stream", named) == 200
    assert status(REMOTE, "GET", "/", {"host": "asb.example"}) == 200  # the page that asks for it


def settings(folder: Path, **web: object) -> Settings:
    return load({"data_dir": folder, **{f"web.{k}": v for k, v in web.items()}}, environ={})


def test_a_page_for_others_needs_a_token_and_tls_or_a_proxy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs TLS"):
        rules_of(settings(tmp_path, host="0.0.0.0", token=TOKEN))
    assert rules_of(settings(tmp_path, names=("a.example",), behind_proxy=True)).reads_too
    with pytest.raises(ConfigError, match="at least 16"):
        rules_of(settings(tmp_path, token="short"))
    with pytest.raises(ConfigError, match="go together"):
        rules_of(settings(tmp_path, tls_key="k"))
    rules = rules_of(settings(tmp_path, host="0.0.0.0", token=TOKEN, behind_proxy=True))
    assert rules.reads_too
    assert "0.0.0.0" not in rules.names


def test_the_token_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    token = token_of(folder)
    assert len(token) >= 32
    assert token_of(folder) == token
    assert (folder / TOKEN_FILE).stat().st_mode & 0o777 == 0o600
    assert not rules_of(settings(folder)).reads_too


def test_nothing_foreign_runs_on_the_page() -> None:
    assert "default-src 'none'" in POLICY
    assert "unsafe" not in POLICY
    static = Path(__file__).parents[2] / "services" / "web" / "static"
    for path in static.iterdir():
        text = path.read_text()
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert word not in text, f"{path.name} has {word}"
        assert "//" not in re.sub(r"http://www\.w3\.org|^ *//.*$", "", text, flags=re.MULTILINE)
