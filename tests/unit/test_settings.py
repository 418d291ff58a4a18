"""Settings: which source wins, and what a wrong one is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from services.runtime.errors import ConfigError
from services.runtime.settings import Settings, describe, load
from services.runtime.settings_types import PolicySettings, PriceSetting, RouteSetting, RuleSetting

Load = Callable[..., Settings]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture
def read(home: Path) -> Load:
    """``load`` in an empty home: ``read(toml, overrides, ASB_X="…")``."""

    def call(
        toml: str | None = None, overrides: Mapping[str, object] | None = None, **environ: str
    ) -> Settings:
        if toml is not None:
            (home / "asb.toml").write_text(toml)
        return load(overrides, environ={"HOME": str(home), **environ}, cwd=home)

    return call


def refusal(read: Load, *args: Any, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(*args, **environ)
    return str(caught.value)


# -- defaults ----------------------------------------------------------------------------------


def test_defaults_are_the_seeds(read: Load, home: Path) -> None:
    settings = read()
    assert settings.redis_url is None
    assert settings.namespace == "asb"
    assert settings.data_dir == home / ".local/share/asb"
    assert settings.embedded.appendfsync == "always"
    assert settings.tasks.lease_s == 60
    assert [str(one) for one in settings.policy.limits] == [
        "worker 100000 tokens/hour",
        "worker 1000000 tokens/day",
        "global 500000 tokens/hour",
        "global 5000000 tokens/day",
        "global $5/hour",
        "global $50/day",
        "global $1000/month",
    ]
    assert [str(one) for one in settings.policy.alert_budgets] == [
        "global 150000 tokens/day at 80 %",
        "global 1000000 tokens/week at 80 %",
        "global $10/day at 100 %",
    ]
    assert settings.policy.prices["haiku"].flat == Decimal("0.00025")
    assert settings.policy.prices["sonnet"].flat == Decimal("0.003")
    assert settings.origins == {}


def test_data_folder_follows_xdg(read: Load, tmp_path: Path) -> None:
    assert read(XDG_DATA_HOME="/srv/data").data_dir == Path("/srv/data/asb")
    # A relative path in an XDG variable is invalid and ignored, as its specification says.
    assert read(XDG_DATA_HOME="data").data_dir == tmp_path / "home/.local/share/asb"


# -- which source wins -------------------------------------------------------------------------


def test_command_line_beats_environment_beats_file_beats_default(read: Load) -> None:
    toml = "[tasks]\nlease_s = 100\nmax_attempts = 4\ntimeout_s = 50"
    settings = read(
        toml,
        {"tasks.lease_s": 300, "namespace": None},
        ASB_TASKS_LEASE_S="200",
        ASB_TASKS_TIMEOUT_S="70",
    )
    assert settings.tasks.lease_s == 300
    assert settings.tasks.timeout_s == 70
    assert settings.tasks.max_attempts == 4
    assert settings.tasks.heartbeat_s == 15
    assert settings.origins == {
        "tasks.lease_s": "command line",
        "tasks.timeout_s": "environment",
        "tasks.max_attempts": "file",
    }


def test_the_file_beside_you_beats_the_one_at_home(read: Load, home: Path) -> None:
    (home / ".config/asb").mkdir(parents=True)
    (home / ".config/asb/config.toml").write_text('namespace = "at-home"')
    assert read().namespace == "at-home"
    assert read('namespace = "beside"').namespace == "beside"
    (home / "third.toml").write_text('namespace = "third"')
    assert read(ASB_CONFIG="third.toml").namespace == "third"
    assert read(None, {"config": "asb.toml"}, ASB_CONFIG="third.toml").namespace == "beside"
    assert read(ASB_CONFIG="third.toml").file == home / "third.toml"


@pytest.mark.parametrize(
    ("overrides", "environ", "named"),
    [({"config": "no.toml"}, {}, "--config"), ({}, {"ASB_CONFIG": "no.toml"}, "ASB_CONFIG")],
)
def test_a_named_file_must_exist(
    read: Load, overrides: dict[str, object], environ: dict[str, str], named: str
) -> None:
    message = refusal(read, None, overrides, **environ)
    assert named in message
    assert "no.toml" in message


def test_lists_replace_and_tables_add(read: Load) -> None:
    settings = read(
        """
        [[policy.limits]]
        scope = "worker:w1"
        unit = "money"
        window = "5h"
        amount = 0.1
        [policy.prices.opus]
        input = 15
        output = "75.5"
        [delegator.routes.ui]
        agent = "comet"
        model = "haiku"
        [[delegator.rules]]
        kind = "database"
        pattern = "vacuum"
        """
    )
    (limit,) = settings.policy.limits
    assert limit.scope == "worker:w1"
    assert limit.amount == Decimal("0.1")  # what was written, not the nearest binary fraction
    assert set(settings.policy.prices) == {"haiku", "sonnet", "opus"}
    opus = PriceSetting(input=Decimal(15), output=Decimal("75.5"))
    assert settings.policy.prices["opus"] == opus
    assert settings.delegator.routes == {"ui": RouteSetting(agent="comet", model="haiku")}
    assert settings.delegator.rules == (RuleSetting(kind="database", pattern="vacuum", weight=50),)


def test_amounts_are_exact_beyond_what_a_float_holds(read: Load) -> None:
    one = limit(unit="money", amount=0).replace("amount = 0", "amount = 100000000.000000001")
    assert read(one).policy.limits[0].amount == Decimal("100000000.000000001")


def test_lists_and_tables_in_the_environment_are_json(read: Load) -> None:
    one = [{"scope": "global", "unit": "money", "window": "day", "amount": 0.3}]
    settings = read(
        ASB_POLICY_LIMITS=json.dumps(one),
        ASB_POLICY_PRICES='{"haiku": {"flat": 0.1}}',
        ASB_POLICY_CRITICAL_OVERDRAFT="true",
    )
    assert [str(limit) for limit in settings.policy.limits] == ["global $0.3/day"]
    assert settings.policy.prices["haiku"].flat == Decimal("0.1")
    assert settings.policy.critical_overdraft is True


def test_paths_are_relative_to_who_named_them(read: Load, home: Path) -> None:
    folder = home / "conf"
    folder.mkdir()
    (folder / "x.toml").write_text('data_dir = "data"')
    assert read(None, {"config": "conf/x.toml"}).data_dir == folder / "data"
    assert read(ASB_DATA_DIR="data").data_dir == home / "data"
    assert read(ASB_DATA_DIR="~/data").data_dir == home / "data"
    assert read(None, {"data_dir": Path("/abs")}).data_dir == Path("/abs")


def test_empty_values(read: Load) -> None:
    toml = 'redis_url = "redis://h:1"'
    assert read(toml, ASB_REDIS_URL="").redis_url == "redis://h:1"  # empty is not set
    assert read(toml, {"redis_url": ""}).redis_url is None  # the embedded one, on request


def test_other_variables_are_left_alone(read: Load) -> None:
    assert read(ASB_TEST_PROVE="1", ASB_TASK="t1", ASBESTOS="1").origins == {}


# -- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"ASB_REDIS": "redis://x"}, "did you mean ASB_REDIS_URL?"),
        ({"ASB_TASK_LEASE_S": "60"}, "did you mean ASB_TASKS_LEASE_S?"),
        ({"ASB_TASKS_LEASE_S": "soon"}, "tasks.lease_s = 'soon' (ASB_TASKS_LEASE_S"),
        ({"ASB_TASKS_LEASE_S": "soon"}, "expected a whole number from 1 to 2592000"),
        ({"ASB_TASKS_MAX_ATTEMPTS": "0"}, "tasks.max_attempts = '0'"),
        ({"ASB_EMBEDDED_APPENDFSYNC": "often"}, "expected one of always, everysec, no"),
        ({"ASB_EMBEDDED_PORT": "70000"}, "from 1 to 65535"),
        ({"ASB_NAMESPACE": "a:b"}, "namespace = 'a:b'"),
        ({"ASB_POLICY_TIMEZONE": "Mars/Olympus"}, "policy.timezone = 'Mars/Olympus'"),
        ({"ASB_POLICY_TIMEZONE": "../../etc/passwd"}, "policy.timezone"),
        ({"ASB_POLICY_CRITICAL_OVERDRAFT": "maybe"}, "expected true or false"),
        ({"ASB_POLICY_LIMITS": "lots"}, "not valid JSON"),
        ({"ASB_POLICY_LIMITS": "{}"}, "expected a list of tables"),
    ],
)
def test_a_wrong_variable_is_named(read: Load, environ: dict[str, str], expected: str) -> None:
    assert expected in refusal(read, **environ)


def limit(**changes: object) -> str:
    fields = {"scope": "global", "unit": "tokens", "window": "day", "amount": 5, **changes}
    return "[[policy.limits]]\n" + "\n".join(f"{k} = {json.dumps(v)}" for k, v in fields.items())


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("redis = 1", "did you mean redis_url?"),
        ("lease_s = 60", "did you mean tasks.lease_s?"),
        ("[task]\nlease_s = 60", "task (in"),
        ("[tasks]\nleases = 60", "did you mean tasks.lease_s?"),
        ("tasks = 5", "expected a table"),
        ("[tasks]\nlease_s = 60.5", "tasks.lease_s = 60.5"),
        ("[tasks]\nlease_s = true", "tasks.lease_s = True"),
        ("[tasks]\nlease_s = '60'", "tasks.lease_s = '60'"),
        ("[tasks]\nlease_s = 30", "set tasks.heartbeat_s to 10 or less"),
        ("[tasks]\nlease_s = 2", "set tasks.lease_s to 3 or more"),
        ("[tasks]\nbackoff_s = 400", "raise tasks.backoff_max_s"),
        ("[tasks\n", "is not valid TOML"),
        (limit(scope="team"), "policy.limits[0]"),
        (limit(scope="team"), "scope 'team': allowed are global, worker"),
        (limit(scope="global:x"), "scope 'global:x'"),
        (limit(scope="worker:"), "scope 'worker:'"),
        (limit(window="25h"), "window '25h': allowed are hour, day"),
        (limit(unit="calls"), "policy.limits[0].unit = 'calls'"),
        (limit(amount="many"), "policy.limits[0].amount = 'many'"),
        (limit(amount="NaN"), "amount"),
        (limit(amount=-1), "amount -1: expected 0 or more"),
        (limit(amount=1.5), "amount 1.5: expected a whole number"),
        (limit(unit="money", amount="0.0000000001"), "at most 9 decimal places"),
        (limit(amout=5), "policy.limits[0].amout"),
        (limit(amout=5), "did you mean amount?"),
        ("[policy.prices.opus]\ninput = 1", "policy.prices.opus"),
        ("[policy.prices.opus]\nflat = 1\noutput = 1", "either flat or by part"),
        ("[policy.prices.opus]\ninput = 1\noutput = 1e-10", "at most 9 decimal places"),
        ("[policy.prices]\nopus = 3", "policy.prices.opus = 3"),
        ("[delegator.routes.ui]\nagent = 'comet'", "delegator.routes.ui"),
        ("redis_url = 'localhost:6379'", "expected redis://HOST:PORT"),
    ],
)
def test_a_wrong_file_is_told_what_is_allowed(read: Load, toml: str, expected: str) -> None:
    assert expected in refusal(read, toml)


def test_a_wrong_override_is_named(read: Load) -> None:
    assert "did you mean tasks.lease_s?" in refusal(read, None, {"tasks.lease": 5})


def test_no_message_shows_a_password(read: Load) -> None:
    message = refusal(read, None, {"redis_url": "http://u:secret@h:1"})
    assert "u:***@h:1" in message
    assert "secret" not in message


# -- asb config --------------------------------------------------------------------------------


def test_describe_lists_every_setting_with_origin_and_hides_the_password(read: Load) -> None:
    settings = read(
        "[tasks]\nmax_attempts = 4", {"namespace": "mine"}, ASB_REDIS_URL="redis://u:secret@h:1/0"
    )
    rows = {row.name: row for row in describe(settings)}
    assert rows["redis_url"].value == "redis://u:***@h:1/0"
    assert rows["redis_url"].origin == "environment"
    assert rows["redis_url"].default == "not set"
    assert rows["tasks.max_attempts"].value == "4"
    assert rows["tasks.max_attempts"].origin == "file"
    assert rows["tasks.max_attempts"].default == "3"
    assert rows["namespace"].origin == "command line"
    assert rows["tasks.lease_s"].origin == "default"
    assert all(row.meaning for row in rows.values())
    assert "secret" not in json.dumps([row.raw for row in rows.values()])
    assert rows["policy.limits"].raw[0]["amount"] == "100000"


def test_policy_can_be_built_without_files() -> None:
    assert PolicySettings() == PolicySettings()
    assert Settings(data_dir=Path("/x")).tasks.lease_s == 60


def test_the_folder_of_archives_is_a_path_as_that_of_data(tmp_path: Path) -> None:
    """Given it is named in a file or in the environment, then it is read from there on; without a
    name it lies in the data folder."""
    (tmp_path / "asb.toml").write_text('[archive]\nfolder = "cold"')
    environ = {"HOME": str(tmp_path)}
    assert load(environ=environ, cwd=tmp_path).archive.folder == tmp_path / "cold"
    environ["ASB_ARCHIVE_FOLDER"] = "~/away"
    assert load(environ=environ, cwd=tmp_path).archive.folder == tmp_path / "away"


SHARES = """
[[shares]]
unit = "tokens"
window = "hour"
amount = "1M"
buses = [
  { name = "north" },
  { name = "south", redis_url = "redis://me:OPENSESAME@other:6379", namespace = "s" },
]
"""


def test_what_several_buses_divide(read: Load) -> None:
    settings = read(SHARES)
    (share,) = settings.shares
    assert (share.exact_amount, [bus.name for bus in share.buses]) == (
        1_000_000,
        ["north", "south"],
    )
    (row,) = (row for row in describe(settings) if row.name == "shares")
    assert row.value == "1000000 tokens/hour over north, south"
    assert "OPENSESAME" not in str(row)
    as_variable = json.dumps(
        [{"unit": "money", "window": "day", "amount": 5, "buses": [{"name": "x"}]}]
    )
    assert read(ASB_SHARES=as_variable).shares[0].exact_amount == 5_000_000_000


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ('"hour"', '"year"', "year"),
        ('"tokens"', '"tasks"', "unit"),
        ('"south"', '"north"', "same name"),
        ('"south"', '"so uth"', "letters, digits"),
        ("redis://me", "http://me", "no address of a Redis"),
        ('namespace = "s"', "leavin = true", "did you mean leaving"),
        ('name = "north"', 'name = "north", leaving = true', "it cannot leave"),
        ('"1M"', '"much"', "amount"),
        (', redis_url = "redis://me:OPENSESAME@other:6379", namespace = "s"', "", "are the same"),
        (
            "buses = [",
            'buses = [] \n[[shares]]\nunit="money"\nwindow="day"\namount=1\nbuses=[',
            "buses",
        ),
    ],
)
def test_a_wrong_share_is_named(read: Load, before: str, after: str, expected: str) -> None:
    assert before in SHARES
    with pytest.raises(ConfigError, match=expected) as raised:
        read(SHARES.replace(before, after))
    assert "OPENSESAME" not in str(raised.value)
